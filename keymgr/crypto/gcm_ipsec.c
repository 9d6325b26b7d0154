/* AES-256-GCM by libipsec-mb, whose only user this is. It is faster than OpenSSL and libgcrypt where processors have VAES, with AVX-512 or without, and makes a key
 * ready in a tenth of their time (docs/PERFORMANCE.md). Its functions keep nothing between calls and only read a key, so that threads share one without a lock. Of what
 * they are not made for they do nothing, and tell nobody: lg_gcm_seal and lg_gcm_open see to it. */
#include <intel-ipsec-mb.h>

#include "internal.h"

enum { ALIGN = 64 }; /* a key's: the widest registers */
_Static_assert(LG_GCM_MAX < IMB_GCM_MAX_LEN, "what is let through is done");

struct lg_gcm {
    struct gcm_key_data *key; /* in room */
    uint8_t room[sizeof(struct gcm_key_data) + ALIGN - 1];
};

static IMB_MGR *mgr; /* the functions for this processor; nothing that they are given goes there */

int lg_gcm_ipsec_init(enum lg_gcm_kind most)
{
    static const uint64_t wide = IMB_FEATURE_AVX512_SKX, wider_than_sse = IMB_FEATURE_AVX512_SKX | IMB_FEATURE_AVX | IMB_FEATURE_AVX2;
    if (mgr)
        free_mb_mgr(mgr);
    mgr = alloc_mb_mgr(0);
    if (!mgr)
        return -ENOTSUP;
    /* It believes what the processor says of itself; a kernel or hypervisor may not let its registers be used, and the compiler's question knows. */
    __builtin_cpu_init();
    if (most < LG_GCM_AVX512 || !__builtin_cpu_supports("avx512f"))
        mgr->features &= ~wide;
    if (most < LG_GCM_AVX2 || !__builtin_cpu_supports("avx2"))
        mgr->features &= ~wider_than_sse;
    init_mb_mgr_auto(mgr, NULL); /* every algorithm is tested against known answers, too */
    if (imb_get_errno(mgr) || !(mgr->features & IMB_FEATURE_SELF_TEST_PASS))
        return -ENOTSUP;
    return mgr->used_arch == IMB_ARCH_AVX512 ? LG_GCM_AVX512 : mgr->used_arch == IMB_ARCH_AVX2 ? LG_GCM_AVX2 : LG_GCM_SSE;
}

/* With AVX-512 it leaves round keys, powers of the hash key and plaintext in vector registers (2.0.2, built to leave none: IMB_FEATURE_SAFE_DATA), from where a signal or
 * a context switch takes them to other memory. */
static void clear_registers(void)
{
    if (mgr->used_arch == IMB_ARCH_AVX512)
        __asm__ volatile(".irp n,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\tvpxord %%zmm\\n,%%zmm\\n,%%zmm\\n\n\t.endr" ::: "memory");
    if (mgr->used_arch == IMB_ARCH_AVX512 || mgr->used_arch == IMB_ARCH_AVX2)
        __asm__ volatile("vzeroall" ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    else
        __asm__ volatile(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\tpxor %%xmm\\n,%%xmm\\n\n\t.endr"
                         ::: "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

static int key_make(const struct lg_secret *key, struct lg_gcm **ret)
{
    struct lg_gcm *g = lg_secret_alloc(sizeof *g);
    if (!g)
        return -ENOMEM;
    g->key = (struct gcm_key_data *)(((uintptr_t)g->room + ALIGN - 1) / ALIGN * ALIGN);
    IMB_AES256_GCM_PRE(mgr, key->b, g->key);
    clear_registers();
    *ret = g;
    return 0;
}

static void key_done(struct lg_gcm *g) { lg_secret_dealloc(g); }

static int key_seal(struct lg_gcm *g, const uint8_t *nonce, const void *ad, size_t ad_len, const void *in, size_t len, void *out, uint8_t *tag)
{
    struct gcm_context_data c;
    IMB_AES256_GCM_ENC(mgr, g->key, &c, out, in, len, nonce, ad, ad_len, tag, LG_TAG_LEN);
    clear_registers();
    lg_wipe(&c, sizeof c);
    return 0;
}

static int key_open(struct lg_gcm *g, const uint8_t *nonce, const void *ad, size_t ad_len, const void *in, size_t len, void *out, const uint8_t *tag)
{
    struct gcm_context_data c;
    uint8_t got[LG_TAG_LEN] = { (uint8_t)~tag[0] };
    IMB_AES256_GCM_DEC(mgr, g->key, &c, out, in, len, nonce, ad, ad_len, got, LG_TAG_LEN);
    clear_registers();
    lg_wipe(&c, sizeof c);
    bool ok = lg_equal(got, tag, sizeof got);
    lg_wipe(got, sizeof got); /* with it, what does not verify would */
    return ok ? 0 : -EBADMSG;
}

const struct lg_gcm_lib lg_gcm_ipsec = { key_make, key_done, key_seal, key_open };
