/* Messages: what is encoded comes back, and nothing that is cut, extended or out of bounds is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "leadglass/wire.h"

static uint8_t buf[LG_WIRE_FRAME_MAX];

static struct lg_request full_request(unsigned type)
{
    struct lg_request q = { .type = (uint16_t)type, .id = 0x1122334455667788u, .pass = (const uint8_t *)"open\0sesame", .pass_len = 11,
        .version = 7, .session = 99, .uid = "1.2.840.1", .reason = "consent withdrawn", .mountpoint = "/srv/pacs",
        .info = { "1.2.3", "PAT^1", "ACC", "20240131", "CT" }, .now = true, .has_after = true, .event = 5, .event_result = -EIO,
        .slot_type = LG_SLOT_KEY_FILE, .slot_name = "desk" };
    memset(q.vault_id, 0xa1, LG_ID_LEN);
    memset(q.kid, 0xb2, LG_ID_LEN);
    return q;
}

static void requests_round_trip(void **state)
{
    (void)state;
    for (unsigned t = LG_MSG_STATUS; t <= LG_MSG_LAST; t++) {
        struct lg_request q = full_request(t), back;
        size_t len = 0, again = 0;
        if (lg_request_encode(&q, buf, sizeof buf, &len) == -EINVAL)
            continue; /* no such message */
        assert_true(len > 0);
        uint8_t first[LG_WIRE_REQUEST_MAX], second[LG_WIRE_REQUEST_MAX];
        assert_true(len <= sizeof first);
        memcpy(first, buf, len);
        assert_int_equal(lg_request_decode(first, len, &back), 0);
        assert_int_equal(back.type, t);
        assert_true(back.id == q.id);
        assert_int_equal(lg_request_encode(&back, second, sizeof second, &again), 0);
        assert_int_equal(again, len);
        assert_memory_equal(first, second, len);
        for (size_t cut = 0; cut < len; cut++) {
            /* with the length as it was, and with a length that agrees */
            assert_int_equal(lg_request_decode(first, cut, &back), -EPROTO);
            memcpy(second, first, len);
            second[0] = (uint8_t)cut, second[1] = (uint8_t)(cut >> 8);
            assert_int_equal(lg_request_decode(second, cut, &back), -EPROTO);
        }
        memcpy(second, first, len);
        second[len] = 0;
        second[0] = (uint8_t)(len + 1), second[1] = (uint8_t)((len + 1) >> 8);
        assert_int_equal(lg_request_decode(second, len + 1, &back), -EPROTO);
        assert_int_equal(lg_request_encode(&q, second, len - 1, &again), -ENOSPC);
    }
}

static void request_fields(void **state)
{
    (void)state;
    struct lg_request q = full_request(LG_MSG_UNLOCK), back;
    size_t len = 0;
    assert_int_equal(lg_request_encode(&q, buf, sizeof buf, &len), 0);
    /* the bytes of docs/PROTOCOL.md */
    static const uint8_t want[] = { 33, 0, 0, 0, 'L', 'G', 'K', '1', 1, 0, 2, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
        11, 0, 'o', 'p', 'e', 'n', 0, 's', 'e', 's', 'a', 'm', 'e' };
    assert_int_equal(len, sizeof want);
    assert_memory_equal(buf, want, len);
    assert_int_equal(lg_request_decode(buf, len, &back), 0);
    assert_int_equal(back.pass_len, 11);
    assert_memory_equal(back.pass, "open\0sesame", 11);
    q = full_request(LG_MSG_REVOKE);
    assert_int_equal(lg_request_encode(&q, buf, sizeof buf, &len), 0);
    assert_int_equal(lg_request_decode(buf, len, &back), 0);
    assert_string_equal(back.uid, "1.2.840.1");
    assert_string_equal(back.reason, "consent withdrawn");
    assert_true(back.now);
    q = full_request(LG_MSG_ACK);
    assert_int_equal(lg_request_encode(&q, buf, sizeof buf, &len), 0);
    assert_int_equal(lg_request_decode(buf, len, &back), 0);
    assert_int_equal(back.event_result, -EIO);
}

/* A byte more when there is something to say; older programs do not send it. */
static void unlogged(void **state)
{
    (void)state;
    struct lg_request q = full_request(LG_MSG_SESSION_BEGIN), back;
    size_t len = 0, more = 0;
    assert_int_equal(lg_request_encode(&q, buf, sizeof buf, &len), 0);
    assert_int_equal(lg_request_decode(buf, len, &back), 0);
    assert_false(back.unlogged);
    q.unlogged = true;
    assert_int_equal(lg_request_encode(&q, buf, sizeof buf, &more), 0);
    assert_int_equal(more, len + 1);
    assert_int_equal(lg_request_decode(buf, more, &back), 0);
    assert_true(back.unlogged);
    assert_string_equal(back.mountpoint, "/srv/pacs");
    for (unsigned v = 0; v < 256; v++) {
        buf[len] = (uint8_t)v;
        assert_int_equal(lg_request_decode(buf, more, &back), v == 1 ? 0 : -EPROTO);
    }
    buf[len] = buf[more] = 1;
    buf[0] = (uint8_t)(more + 1);
    assert_int_equal(lg_request_decode(buf, more + 1, &back), -EPROTO);
}

static void newer_and_foreign(void **state)
{
    (void)state;
    struct lg_request q = full_request(LG_MSG_STATUS), back;
    struct lg_header h;
    size_t len = 0;
    assert_int_equal(lg_request_encode(&q, buf, sizeof buf, &len), 0);
    buf[8] = 2;
    assert_int_equal(lg_request_decode(buf, len, &back), -EPROTONOSUPPORT);
    assert_int_equal(lg_wire_header(buf, len, &h), 0);
    assert_int_equal(h.version, 2);
    buf[8] = 1;
    buf[10] = LG_MSG_LAST + 1;
    assert_int_equal(lg_request_decode(buf, len, &back), -EPROTONOSUPPORT);
    buf[10] = LG_MSG_STATUS;
    buf[2] = 0x20; /* two megabytes */
    assert_int_equal(lg_wire_header(buf, len, &h), -EPROTO);
    buf[2] = 0;
    buf[4] = 'X';
    assert_int_equal(lg_wire_header(buf, len, &h), -EPROTO);
}

struct big {
    struct lg_keyd_status keyd;
    struct lg_unconfirmed un;
    struct lg_study studies[LG_WIRE_STUDIES_MAX];
    uint64_t unclean[LG_UNCLEAN_MAX];
    struct lg_slot_info slots[LG_SLOTS_MAX];
    uint8_t blob[LG_WIRE_BLOB_MAX];
    struct lg_audit_heads heads;
    struct lg_audit_info audit;
};

static struct lg_answer lend(struct big *b, unsigned type)
{
    return (struct lg_answer){ .type = (uint16_t)type, .id = 3, .keyd = &b->keyd, .unconfirmed = &b->un, .studies = b->studies, .blob = b->blob,
        .unclean = b->unclean, .slots = b->slots, .heads = &b->heads, .audit = &b->audit };
}

static void answers_round_trip(void **state)
{
    (void)state;
    struct big *in = calloc(1, sizeof *in), *out = calloc(1, sizeof *out);
    uint8_t *second = malloc(LG_WIRE_FRAME_MAX);
    assert_true(in && out && second);
    /* everything as large as it may be, so that the largest answer is known to fit a frame */
    in->keyd.unlocked = true;
    memset(in->keyd.keyring_dir, 'k', LG_WIRE_PATH_MAX);
    memset(in->keyd.slot_path, 's', LG_WIRE_PATH_MAX);
    in->keyd.n_mounts = in->un.n = LG_WIRE_MOUNTS_MAX;
    for (unsigned i = 0; i < LG_WIRE_MOUNTS_MAX; i++) {
        memset(in->keyd.mounts[i].mountpoint, 'm', LG_WIRE_MOUNTPOINT_MAX);
        memset(in->un.mount[i].mountpoint, 'u', LG_WIRE_MOUNTPOINT_MAX);
        in->un.mount[i].away = in->keyd.mounts[i].away = i;
        in->un.mount[i].latest = i + 1;
        struct lg_study *s = &in->studies[i];
        memset(s->info.uid, '1', LG_UID_MAX);
        memset(s->info.patient_id, 'p', LG_PATIENT_ID_MAX);
        memset(s->info.accession, 'a', LG_ACCESSION_MAX);
        memset(s->info.date, '2', LG_DATE_MAX);
        memset(s->info.modality, 'M', LG_MODALITY_MAX);
        memset(s->reason, 'r', LG_REASON_MAX);
        s->state = LG_KEY_DESTROYED;
        s->held = s->unconfirmed = true;
        s->retain_until = s->due = 5;
        s->outstanding = 6;
    }
    for (unsigned i = 0; i < LG_UNCLEAN_MAX; i++)
        in->unclean[i] = i + 1;
    for (unsigned i = 0; i < LG_SLOTS_MAX; i++) {
        in->slots[i] = (struct lg_slot_info){ .number = i, .type = LG_SLOT_TPM, .proved = 4 };
        memset(in->slots[i].name, 'n', LG_SLOT_NAME_MAX);
    }
    struct lg_secret *key = lg_secret_random();
    assert_non_null(key);
    for (unsigned t = LG_MSG_STATUS; t <= LG_MSG_LAST; t++) {
        struct lg_answer a = lend(in, t), back = lend(out, 0);
        a.state = LG_KEY_DESTROYING;
        a.n_studies = LG_WIRE_STUDIES_MAX;
        a.n_unclean = LG_UNCLEAN_MAX;
        a.lease_s = LG_LEASE_S;
        a.session = 12;
        a.n_slots = LG_SLOTS_MAX;
        a.blob_len = LG_WIRE_BLOB_MAX;
        memset(a.head, 'h', LG_HEAD_TEXT_MAX);
        in->heads.n = LG_AUDIT_HEADS_MAX;
        memset(in->heads.head[LG_AUDIT_HEADS_MAX - 1], 'h', LG_HEAD_TEXT_MAX);
        in->audit.failing = true;
        memset(in->audit.log, 'l', LG_WIRE_PATH_MAX);
        a.rotated = (struct lg_rotated){ 3, 4, true, { 1 } };
        for (unsigned i = 0; i < 2; i++)
            a.key[i] = (struct lg_key){ .version = i + 1, .kind = LG_KIND_VAULT, .state = LG_KEY_ACTIVE, .key = key };
        size_t len = 0, again = 0;
        if (lg_answer_encode(&a, buf, sizeof buf, &len) == -EINVAL)
            continue; /* no such message */
        assert_int_equal(lg_answer_decode(buf, len, &back), 0);
        assert_int_equal(back.type, t);
        if (t == LG_MSG_VAULT_GET)
            assert_true(lg_equal(back.key[1].key, key, LG_KEY_LEN));
        assert_int_equal(lg_answer_encode(&back, second, LG_WIRE_FRAME_MAX, &again), 0);
        assert_int_equal(again, len);
        assert_memory_equal(buf, second, len);
        lg_answer_done(&back);
        for (size_t cut = 0; cut < len; cut += 1 + cut / 64) {
            back = lend(out, 0);
            second[0] = (uint8_t)cut, second[1] = (uint8_t)(cut >> 8), second[2] = (uint8_t)(cut >> 16);
            assert_int_equal(lg_answer_decode(second, cut, &back), -EPROTO);
            assert_null(back.key[0].key);
        }
        a.status = -ENOKEY;
        assert_int_equal(lg_answer_encode(&a, buf, sizeof buf, &len), 0);
        assert_int_equal(len, LG_WIRE_HEADER + 8);
        back = lend(out, 0);
        assert_int_equal(lg_answer_decode(buf, len, &back), 0);
        assert_int_equal(back.status, -ENOKEY);
        buf[LG_WIRE_HEADER + 3] = 0x7f; /* no errno */
        assert_int_equal(lg_answer_decode(buf, len, &back), -EPROTO);
    }
    lg_secret_free(key);
    free(in);
    free(out);
    free(second);
}

static void events_round_trip(void **state)
{
    (void)state;
    static uint8_t kids[LG_WIRE_KIDS_MAX][LG_ID_LEN];
    memset(kids[1], 9, LG_ID_LEN);
    struct lg_event e = { .kind = LG_EVENT_REVOKE, .n_kids = LG_WIRE_KIDS_MAX, .kids = (const uint8_t(*)[LG_ID_LEN])kids }, back;
    size_t len = 0;
    uint64_t n = 0;
    assert_int_equal(lg_event_encode(77, &e, buf, sizeof buf, &len), 0);
    assert_int_equal(lg_event_decode(buf, len, &n, &back), 0);
    assert_int_equal(n, 77);
    assert_int_equal(back.n_kids, LG_WIRE_KIDS_MAX);
    assert_memory_equal(back.kids[1], kids[1], LG_ID_LEN);
    buf[LG_WIRE_HEADER] = LG_EVENT_RESYNC;
    assert_int_equal(lg_event_decode(buf, len, &n, &back), -EPROTO);
    buf[LG_WIRE_HEADER] = LG_EVENT_LOCK;
    buf[LG_WIRE_HEADER + 1] ^= 1; /* one more than there are */
    assert_int_equal(lg_event_decode(buf, len, &n, &back), -EPROTO);
}

int main(void)
{
    if (lg_secret_init(true) != 0)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_round_trip), cmocka_unit_test(request_fields), cmocka_unit_test(unlogged), cmocka_unit_test(newer_and_foreign),
        cmocka_unit_test(answers_round_trip),  cmocka_unit_test(events_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
