/* All decoders on any bytes, and on a frame made of them whose header is good (2 bytes: the type; the body); what a decoder takes, the encoder must give back
 * byte for byte. */
#include <stdlib.h>

#include "leadglass/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct lg_keyd_status keyd;
static struct lg_unconfirmed unconfirmed;
static struct lg_study studies[LG_WIRE_STUDIES_MAX];
static uint64_t unclean[LG_UNCLEAN_MAX];
static struct lg_slot_info slots[LG_SLOTS_MAX];
static uint8_t blob[LG_WIRE_BLOB_MAX];
static struct lg_audit_heads heads;
static struct lg_audit_info audit;
static uint8_t out[LG_WIRE_FRAME_MAX];

static void same(int e, size_t n, const uint8_t *data, size_t len)
{
    if (e || n != len || memcmp(out, data, len) != 0)
        abort();
}

static void decode(const uint8_t *data, size_t len)
{
    struct lg_request q;
    struct lg_event ev;
    uint64_t number;
    size_t n = 0;
    if (lg_request_decode(data, len, &q) == 0 && len <= LG_WIRE_REQUEST_MAX) {
        int e = lg_request_encode(&q, out, sizeof out, &n);
        same(e, n, data, len);
    }
    if (lg_event_decode(data, len, &number, &ev) == 0) {
        int e = lg_event_encode(number, &ev, out, sizeof out, &n);
        same(e, n, data, len);
    }
    struct lg_answer a = { .keyd = &keyd, .unconfirmed = &unconfirmed, .studies = studies, .unclean = unclean, .slots = slots, .blob = blob, .heads = &heads, .audit = &audit };
    if (lg_answer_decode(data, len, &a) == 0) {
        int e = lg_answer_encode(&a, out, sizeof out, &n);
        same(e, n, data, len);
        lg_answer_done(&a);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static bool ready;
    if (!ready && (lg_secret_init(true) || lg_crypto_init()))
        abort();
    ready = true;
    decode(data, len);
    if (len < 2 || len > LG_WIRE_FRAME_MAX - LG_WIRE_HEADER)
        return 0;
    size_t n = LG_WIRE_HEADER + len - 2;
    uint8_t *frame = malloc(n);
    if (!frame)
        abort();
    struct lg_wr w = lg_wr(frame, n);
    lg_wr_u32(&w, (uint32_t)n);
    lg_wr_u32(&w, LG_WIRE_MAGIC);
    lg_wr_u16(&w, LG_WIRE_VERSION);
    lg_wr_bytes(&w, data, 2);
    lg_wr_u64(&w, 1);
    lg_wr_bytes(&w, data + 2, len - 2);
    decode(frame, n);
    free(frame);
    return 0;
}
