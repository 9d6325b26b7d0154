/* Every kind of record as a DICOM audit message. `dicom_test --write DIR` leaves the messages there, one file each, for dicom_schema.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dicom.h"

static const struct lg_dicom_source source = { .id = "pacs1", .site = "St. Mary's <&\">", .host = "pacs.example", .log = "/var/lib/leadglass/keyring.audit" };
static const struct lg_audit_chain keyd = { .name = "keyd", .kind = "keyd", .id = { 0xab, 0xcd } }, mnt = { .name = "mount-0011223344556677", .kind = "mount", .id = { 0x12 } };

/* event, chain, how, outcome, study known, message's event id (0: none is sent), its type */
static const struct kind {
    const char *event;
    const struct lg_audit_chain *chain;
    const char *how;
    int outcome;
    unsigned study; /* 0: none, 1: a key, 2: and its UID, 3: and the patient */
    const char *id, *type, *action, *failed;
} kinds[] = {
    { "file.open", &mnt, "read", 0, 3, "110103", NULL, "R", "0" },
    { "file.open", &mnt, "write", 0, 2, "110103", NULL, "U", "0" },
    { "file.open", &mnt, "create", 0, 1, "110103", NULL, "C", "0" },
    { "file.open", &mnt, "read", -EKEYREVOKED, 1, "110103", NULL, "R", "4" },
    { "file.open", &mnt, "read", -EIO, 3, "110103", NULL, "R", "8" },
    { "file.open", &mnt, "read", -EACCES, 0, "110103", NULL, "R", "4" },
    { "file.lookup", &mnt, "", -ENOKEY, 0, "110103", NULL, "R", "4" },
    { "file.unlink", &mnt, "", 0, 0, "110103", NULL, "D", "0" },
    { "file.rename", &mnt, "", 0, 0, "110103", NULL, "U", "0" },
    { "file.symlink", &mnt, "", 0, 0, "110103", NULL, "C", "0" },
    { "file.truncate", &mnt, "", 0, 3, "110103", NULL, "U", "0" },
    { "file.close", &mnt, "read", 0, 3, NULL, NULL, NULL, NULL },
    { "file.tampered", &mnt, "", -EIO, 0, "110113", "tampered", "E", "8" },
    { "mount", &mnt, "", 0, 0, "110100", "110120", "E", "0" },
    { "mount", &keyd, "", 0, 0, NULL, NULL, NULL, NULL },
    { "mount", &keyd, "", -EBUSY, 0, "110100", "110120", "E", "4" },
    { "unmount", &mnt, "", 0, 0, "110100", "110121", "E", "0" },
    { "start", &keyd, "", 0, 0, "110100", "110120", "E", "0" },
    { "stop", &keyd, "", 0, 0, "110100", "110121", "E", "0" },
    { "unlock", &keyd, "", 0, 0, "110113", "110132", "E", "0" },
    { "unlock", &keyd, "", -EKEYREJECTED, 0, "110113", "110132", "E", "4" },
    { "lock", &keyd, "", 0, 0, "110113", "110132", "E", "0" },
    { "slot.add", &keyd, "", 0, 0, "110113", "110129", "E", "0" },
    { "slot.test", &keyd, "", -EKEYREJECTED, 0, "110113", "110132", "E", "4" },
    { "officer.act", &keyd, "", 0, 3, "110113", "110132", "E", "0" },
    { "officer.add", &keyd, "submit", 0, 0, "110113", "110136", "E", "0" },
    { "scrub.begin", &keyd, "", 0, 0, "110113", "110141", "E", "0" },
    { "scrub.manifest", &keyd, "", 0, 0, "110113", "110132", "E", "0" },
    { "scrub.end", &keyd, "", 0, 0, "110113", "110142", "E", "0" },
    { "scrub.found", &keyd, "", 0, 0, "110113", "tampered", "E", "8" },
    { "study.returned", &keyd, "", -EKEYREVOKED, 3, "110113", "110132", "E", "4" },
    { "backup.begin", &keyd, "", 0, 0, "110113", "110129", "E", "0" },
    { "vault.add", &keyd, "", 0, 0, "110113", "110129", "E", "0" },
    { "config", &keyd, "", 0, 0, "110113", "110129", "E", "0" },
    { "key.rotate", &keyd, "", 0, 3, "110113", "110135", "E", "0" },
    { "key.revoke", &keyd, "", 0, 3, "110113", "110135", "E", "0" },
    { "key.destroy", &keyd, "", 0, 3, "110105", NULL, "D", "0" },
    { "key.destroy", &keyd, "", -EPERM, 1, "110105", NULL, "D", "4" },
    { "key.lease", &keyd, "", 0, 3, NULL, NULL, NULL, NULL },
    { "key.lease", &keyd, "", -EACCES, 0, "110113", "110132", "E", "4" },
    { "study.list", &keyd, "", 0, 0, NULL, NULL, NULL, NULL },
    { "study.certificate", &keyd, "", 0, 3, "110113", "110135", "E", "0" },
    { "log.read", &keyd, "query", 0, 0, "110101", NULL, "R", "0" },
    { "log.segment", &keyd, "", 0, 0, NULL, NULL, NULL, NULL },
    { "log.pruned", &keyd, "", 0, 0, NULL, NULL, NULL, NULL },
    { "log.failed", &mnt, "", -ENOSPC, 0, "110113", "110133", "E", "8" },
    { "log.failed", &mnt, "continue", -ENOSPC, 0, "110113", "110133", "E", "12" },
    { "log.space", &mnt, "", 0, 0, "110113", "log-space", "E", "4" },
    { "log.broken", &mnt, "", 0, 0, "110113", "log-altered", "E", "12" },
    { "log.fork", &keyd, "", -EBADMSG, 0, "110113", "log-altered", "E", "12" },
    { "log.clock", &mnt, "", 0, 0, "110113", "log-clock", "E", "4" },
    { "from.the-future", &keyd, "", 0, 0, "110113", "other", "E", "0" },
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static struct lg_audit_record rec;
static struct lg_dicom_event event_of(const struct kind *k)
{
    lg_audit_record_init(&rec);
    rec.seq = 4711;
    rec.time_us = 1764019805123456;
    snprintf(rec.event, sizeof rec.event, "%s", k->event);
    snprintf(rec.how, sizeof rec.how, "%s", k->how);
    rec.outcome = k->outcome;
    if (strncmp(k->event, "log.", 4) != 0 || strcmp(k->event, "log.read") == 0) {
        rec.has |= LG_AUDIT_WHO | LG_AUDIT_COUNT;
        rec.uid = 1000;
        rec.pid = 77;
        rec.count = 12;
        rec.until_us = rec.time_us + 5000000;
        snprintf(rec.user, sizeof rec.user, "sam");
        snprintf(rec.exe, sizeof rec.exe, "/usr/bin/Orthanc");
    }
    if (k->study) {
        rec.has |= LG_AUDIT_STUDY | LG_AUDIT_FILE;
        rec.study[0] = 0x5a;
    }
    snprintf(rec.text, sizeof rec.text, "because");
    return (struct lg_dicom_event){ .record = &rec, .chain = k->chain, .study_uid = k->study > 1 ? "1.2.840.99.7" : "", .patient_id = k->study > 2 ? "PAT 7 & <8>" : NULL };
}

static const char *message(const struct lg_dicom_event *e)
{
    static char out[LG_DICOM_MAX + 1];
    size_t n;
    assert_int_equal(lg_dicom_encode(&source, e, out, LG_DICOM_MAX, &n), 0);
    out[n] = 0;
    assert_int_equal(strlen(out), n);
    return out;
}

/* Does `before` come, followed by v and a quotation mark? */
static bool has(const char *m, const char *before, const char *v)
{
    char want[200];
    snprintf(want, sizeof want, "%s\"%s\"", before, v);
    return strstr(m, want) != NULL;
}

static void every_kind(void **state)
{
    (void)state;
    for (unsigned i = 0; i < KINDS; i++) {
        const struct kind *k = &kinds[i];
        struct lg_dicom_event e = event_of(k);
        assert_int_equal(lg_dicom_wanted(&e), k->id != NULL);
        if (!k->id)
            continue;
        const char *m = message(&e);
        assert_true(has(m, "<EventID csd-code=", k->id));
        assert_int_equal(strstr(m, "<EventTypeCode") != NULL, k->type != NULL);
        assert_true(!k->type || has(m, "<EventTypeCode csd-code=", k->type));
        assert_true(has(m, "EventActionCode=", k->action));
        assert_true(has(m, "EventOutcomeIndicator=", k->failed));
        assert_int_equal(lg_dicom_warning(&e), strcmp(k->failed, "0") != 0);
        assert_true(strstr(m, "EventDateTime=\"2025-11-24T21:30:05.123456Z\"") != NULL);
        assert_int_equal(strstr(m, "1.2.840.99.7") != NULL, k->study > 1);
        assert_int_equal(strstr(m, "PAT 7 &amp; &lt;8&gt;") != NULL, k->study > 2);
        assert_int_equal(strstr(m, "sam@pacs.example") != NULL, (rec.has & LG_AUDIT_WHO) != 0);
        assert_true(strstr(m, "\n") == NULL);
    }
}

/* Nothing that a user can choose ends a value or a line, or is anything but text for whoever shows it. */
static void hostile(void **state)
{
    (void)state;
    static const char bad[] = "a\"/><x>&'\n\r\t\x1b[2J\x7f\xc2\x85\xe2\x80\xae\xe2\x80\xa8\xff\xc0\x80\xed\xa0\x80\xef\xbf\xbe\xee\xbc\x8a]]>z\xc3\xa9";
    struct lg_dicom_event e = event_of(&kinds[0]);
    snprintf(rec.user, sizeof rec.user, "%s", bad);
    snprintf(rec.exe, sizeof rec.exe, "%s", bad);
    snprintf(rec.text, sizeof rec.text, "%s", bad);
    e.patient_id = bad;
    const char *m = message(&e);
    assert_true(strstr(m, "<x>") == NULL && strstr(m, "]]>") == NULL && strstr(m, "&lt;x&gt;&amp;&apos;") != NULL);
    assert_true(strstr(m, "\xc3\xa9") != NULL);                  /* an honest letter stays */
    assert_true(strstr(m, "\xee\xbc\x8a\xee\xbc\x8d") != NULL);  /* U+EF0A U+EF0D: newline, carriage return */
    assert_true(strstr(m, "\xee\xbf\xbf\xee\xbf\x80\xee\xbe\x80") != NULL); /* U+EFFF U+EFC0 U+EF80 */
    assert_true(strstr(m, "\xee\xbf\xae\xee\xbe\xbc\xee\xbe\x8a") != NULL); /* the octets of U+EF0A itself */
    for (const uint8_t *p = (const uint8_t *)m; *p; p++)
        assert_true(*p >= 0x20 && *p != 0x7f);
    /* The longest record there can be still fits. */
    memset(rec.user, '"', sizeof rec.user - 1);
    memset(rec.exe, 0xff, sizeof rec.exe - 1);
    memset(rec.text, 0xff, sizeof rec.text - 1);
    rec.has |= LG_AUDIT_RANGE;
    rec.from = rec.to = UINT64_MAX;
    char patient[LG_PATIENT_ID_MAX + 1];
    memset(patient, '"', sizeof patient - 1);
    patient[sizeof patient - 1] = 0;
    e.patient_id = patient;
    assert_true(strlen(message(&e)) < LG_DICOM_MAX);
    char small[100];
    size_t n;
    assert_int_equal(lg_dicom_encode(&source, &e, small, sizeof small, &n), -ENOSPC);
}

static struct lg_dicom_event finding(void)
{
    static const struct lg_audit_problem p = { .what = LG_AUDIT_MISSING, .from = 7, .to = 9 };
    return (struct lg_dicom_event){ .finding = &p, .finding_us = 1764019805123456, .chain = &mnt };
}

static void a_finding(void **state)
{
    (void)state;
    struct lg_dicom_event e = finding();
    const char *m = message(&e);
    assert_true(lg_dicom_wanted(&e) && strstr(m, "log-altered") && strstr(m, "EventOutcomeIndicator=\"12\""));
}

static int write_all(const char *dir)
{
    char path[4096];
    for (unsigned i = 0; i <= KINDS; i++) {
        struct lg_dicom_event e = i < KINDS ? event_of(&kinds[i]) : finding();
        char out[LG_DICOM_MAX];
        size_t n;
        if (!lg_dicom_wanted(&e))
            continue;
        if (i < KINDS && i % 3 == 0) /* some of them with names from hell */
            snprintf(rec.user, sizeof rec.user, "\x01\xfe<\">&\xe2\x80\xae");
        snprintf(path, sizeof path, "%s/%02u.xml", dir, i);
        FILE *f = fopen(path, "w");
        if (!f || lg_dicom_encode(&source, &e, out, sizeof out, &n) || fwrite(out, 1, n, f) != n || fclose(f))
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = { cmocka_unit_test(every_kind), cmocka_unit_test(hostile), cmocka_unit_test(a_finding) };
    if (argc == 3 && strcmp(argv[1], "--write") == 0)
        return write_all(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
