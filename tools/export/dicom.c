/* Written by hand, not with a library: every message has one shape, and what has to be got right is only what becomes of foreign bytes (text()). */
#include "dicom.h"

#include <stdio.h>
#include <string.h>

#include "leadglass/bytes.h"

/* A coded value: csd-code, codeSystemName, originalText. DCM: PS3.16 annex D. Codes of our own stand where the standard has none; its lists (CID 400, 403) are open. */
struct code {
    const char *code, *system, *text;
};
#define DCM "DCM"
#define OURS "99LEADGLASS"

enum family { ACCESS, DELETED, ACTIVITY, LOG_USED, ALERT, NONE };
static const struct code families[] = {
    [ACCESS] = { "110103", DCM, "DICOM Instances Accessed" }, [DELETED] = { "110105", DCM, "DICOM Study Deleted" },
    [ACTIVITY] = { "110100", DCM, "Application Activity" },   [LOG_USED] = { "110101", DCM, "Audit Log Used" },
    [ALERT] = { "110113", DCM, "Security Alert" },
};
static const struct code app_start = { "110120", DCM, "Application Start" }, app_stop = { "110121", DCM, "Application Stop" },
                         restricted = { "110132", DCM, "Use of Restricted Function" }, configuration = { "110129", DCM, "Security Configuration" },
                         roles = { "110136", DCM, "Security Roles Changed" }, service_start = { "110141", DCM, "Local Service Operation Started" },
                         service_stop = { "110142", DCM, "Local Service Operation Stopped" }, attributes = { "110135", DCM, "Object Security Attributes Changed" }, stopped = { "110133", DCM, "Audit Recording Stopped" },
                         tampered = { "tampered", OURS, "Stored data does not verify" }, log_space = { "log-space", OURS, "Audit log is running out of space" },
                         log_altered = { "log-altered", OURS, "Audit log was altered or is not complete" }, log_clock = { "log-clock", OURS, "Clock went back" },
                         other = { "other", OURS, "Other event of the access log" };
static const struct code study_uid = { "110180", DCM, "Study Instance UID" }, patient_number = { "2", "RFC-3881", "Patient Number" }, uri = { "12", "RFC-3881", "URI" },
                         key_id = { "key-id", OURS, "Leadglass key id" }, log_chain = { "log-chain", OURS, "Leadglass access log" },
                         application = { "110150", DCM, "Application" }, launcher = { "110151", DCM, "Application Launcher" };

/* The first line whose event is the record's, or begins it up to a `*`, counts. */
static const struct rule {
    const char *event;
    enum family family;
    char action;
    bool only_failed; /* what every access brings about anyway, or merely shows something, is told only when it was refused */
    const struct code *type;
} rules[] = {
    { "file.open", ACCESS, 'R', false, NULL }, /* by `how`: C, R, U */
    { "file.lookup", ACCESS, 'R', false, NULL },
    { "file.unlink", ACCESS, 'D', false, NULL },
    { "file.rmdir", ACCESS, 'D', false, NULL },
    { "file.mkdir", ACCESS, 'C', false, NULL },
    { "file.symlink", ACCESS, 'C', false, NULL },
    { "file.link", ACCESS, 'C', false, NULL },
    { "file.close", NONE, 0, true, NULL },
    { "file.tampered", ALERT, 'E', false, &tampered },
    { "file.*", ACCESS, 'U', false, NULL },
    { "mount", ACTIVITY, 'E', false, &app_start },
    { "unmount", ACTIVITY, 'E', false, &app_stop },
    { "start", ACTIVITY, 'E', false, &app_start },
    { "stop", ACTIVITY, 'E', false, &app_stop },
    { "log.read", LOG_USED, 'R', false, NULL },
    { "log.segment", NONE, 0, true, NULL },
    { "log.chain", NONE, 0, true, NULL },
    { "log.pruned", NONE, 0, true, NULL },
    { "log.recovered", NONE, 0, true, NULL },
    { "log.failed", ALERT, 'E', false, &stopped },
    { "log.space", ALERT, 'E', false, &log_space },
    { "log.clock", ALERT, 'E', false, &log_clock },
    { "log.*", ALERT, 'E', false, &log_altered }, /* broken, fork */
    { "key.destroy", DELETED, 'D', false, NULL },
    { "key.lease", ALERT, 'E', true, &restricted },
    { "key.provisional", ALERT, 'E', true, &restricted },
    { "key.attach", ALERT, 'E', true, &restricted },
    { "session.close", ALERT, 'E', true, &restricted },
    { "study.returned", ALERT, 'E', false, &restricted },
    { "study.show", ALERT, 'E', true, &restricted },
    { "study.list", ALERT, 'E', true, &restricted },
    { "slot.list", ALERT, 'E', true, &restricted },
    { "officer.show", ALERT, 'E', true, &restricted },
    { "backup.read", ALERT, 'E', true, &restricted },
    { "backup.list", ALERT, 'E', true, &restricted },
    { "unlock", ALERT, 'E', false, &restricted },
    { "lock", ALERT, 'E', false, &restricted },
    { "slot.test", ALERT, 'E', false, &restricted },
    { "officer.add", ALERT, 'E', false, &roles },
    { "officer.remove", ALERT, 'E', false, &roles },
    { "officer.*", ALERT, 'E', false, &restricted },
    { "key.request", ALERT, 'E', false, &restricted },
    { "study.*", ALERT, 'E', false, &attributes },
    { "key.*", ALERT, 'E', false, &attributes },
    { "slot.*", ALERT, 'E', false, &configuration },
    { "vault.*", ALERT, 'E', false, &configuration },
    { "backup.*", ALERT, 'E', false, &configuration },
    { "mirror.*", ALERT, 'E', false, &configuration },
    { "keyring.*", ALERT, 'E', false, &configuration },
    { "scrub.found", ALERT, 'E', false, &tampered },
    { "scrub.begin", ALERT, 'E', false, &service_start },
    { "scrub.manifest", ALERT, 'E', false, &restricted },
    { "scrub.end", ALERT, 'E', false, &service_stop },
    { "config", ALERT, 'E', false, &configuration },
    { "*", ALERT, 'E', false, &other },
};

static const struct rule *rule_of(const struct lg_dicom_event *e)
{
    static const struct rule found = { "", ALERT, 'E', false, &log_altered };
    const struct rule *r = rules;
    if (!e->record)
        return &found;
    for (;; r++) { /* the last line takes everything */
        size_t n = strcspn(r->event, "*");
        if (strncmp(r->event, e->record->event, n) == 0 && (r->event[n] || !e->record->event[n]))
            return r;
    }
}

bool lg_dicom_wanted(const struct lg_dicom_event *e)
{
    const struct rule *r = rule_of(e);
    if (r->family == NONE)
        return false;
    if (r->family == ACTIVITY && strcmp(e->chain->kind, "keyd") == 0 && strstr(e->record->event, "mount")) /* the mount's own chain tells it, unless it came to nothing */
        return e->record->outcome != 0;
    return !r->only_failed || e->record->outcome;
}

/* 0 success; 4 minor, 8 serious, 12 major failure: of an alert, whether the safeguards held (A.5.3.11). */
static int outcome(const struct lg_dicom_event *e)
{
    const struct rule *r = rule_of(e);
    if (!e->record || r->type == &log_altered)
        return 12;
    if (r->type == &stopped)
        return strcmp(e->record->how, "continue") == 0 ? 12 : 8;
    if (r->type == &tampered || e->record->outcome == -EIO || e->record->outcome == -EBADMSG)
        return 8;
    return e->record->outcome || r->type == &log_space || r->type == &log_clock ? 4 : 0;
}

bool lg_dicom_warning(const struct lg_dicom_event *e) { return outcome(e) != 0; }

/* ---- XML ------------------------------------------------------------------------------------------------------------------------------- */

static void lit(struct lg_wr *w, const char *s) { lg_wr_bytes(w, s, strlen(s)); }

/* Foreign bytes, as an attribute's value or an element's text. What is no character that can be shown (a control character, say, or not UTF-8) becomes U+EF00 + octet
 * for each of its octets, as in the log: XML 1.0 cannot hold it even as a reference, nothing of it can end a value or a line, and it can be had back exactly. */
static void text(struct lg_wr *w, const char *s)
{
    while (*s) {
        bool hidden = true;
        size_t n = lg_audit_char(s, &hidden);
        const char *as = *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : *s == '&' ? "&amp;" : *s == '"' ? "&quot;" : *s == '\'' ? "&apos;" : NULL;
        if (as) {
            lit(w, as);
        } else if (n && !hidden) {
            lg_wr_bytes(w, s, n);
        } else {
            n = 1;
            uint8_t c = (uint8_t)*s, u[3] = { 0xee, (uint8_t)(0xbc | c >> 6), (uint8_t)(0x80 | (c & 0x3f)) };
            lg_wr_bytes(w, u, sizeof u);
        }
        s += n;
    }
}

static void attribute(struct lg_wr *w, const char *name, const char *value)
{
    lit(w, " ");
    lit(w, name);
    lit(w, "=\"");
    text(w, value);
    lit(w, "\"");
}

static void coded(struct lg_wr *w, const char *element, const struct code *c)
{
    lit(w, "<");
    lit(w, element);
    attribute(w, "csd-code", c->code);
    attribute(w, "codeSystemName", c->system);
    attribute(w, "originalText", c->text);
    lit(w, "/>");
}

/* The standard's way to carry details: base64 (RFC 4648 section 4) of a value. */
static void detail(struct lg_wr *w, const char *type, const char *value)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = (const uint8_t *)value;
    lit(w, "<ParticipantObjectDetail");
    attribute(w, "type", type);
    lit(w, " value=\"");
    for (size_t left = strlen(value); left; left -= left < 3 ? left : 3, p += 3) {
        uint32_t v = (uint32_t)p[0] << 16 | (left > 1 ? (uint32_t)p[1] << 8 : 0) | (left > 2 ? p[2] : 0);
        char q[4] = { digit[v >> 18], digit[v >> 12 & 63], left > 1 ? digit[v >> 6 & 63] : '=', left > 2 ? digit[v & 63] : '=' };
        lg_wr_bytes(w, q, sizeof q);
    }
    lit(w, "\"/>");
}

/* ---- parts of a message ------------------------------------------------------------------------------------------------------------------ */

static void participant(struct lg_wr *w, const struct lg_dicom_source *s, const char *id, const char *other_id, const char *name, bool requestor, const struct code *role)
{
    lit(w, "<ActiveParticipant");
    attribute(w, "UserID", id);
    if (other_id)
        attribute(w, "AlternativeUserID", other_id);
    if (name && name[0])
        attribute(w, "UserName", name);
    attribute(w, "UserIsRequestor", requestor ? "true" : "false");
    attribute(w, "NetworkAccessPointID", s->host);
    attribute(w, "NetworkAccessPointTypeCode", "1"); /* machine name */
    lit(w, role ? ">" : "/>");
    if (!role)
        return;
    coded(w, "RoleIDCode", role);
    lit(w, "</ActiveParticipant>");
}

/* A.5.2.1: a person is login@host, a process the identifier that the system's logs have for it. Both are told when both are known. */
static void participants(struct lg_wr *w, const struct lg_dicom_source *s, const struct lg_dicom_event *e, enum family f)
{
    const struct lg_audit_record *r = e->record;
    const char *self = strcmp(e->chain->kind, "keyd") == 0 ? "leadglass-keyd" : "leadglass-fs";
    char person[LG_AUDIT_NAME_MAX + 300], uid[16], pid[16];
    bool who = r && r->has & LG_AUDIT_WHO;
    if (f == ACTIVITY)
        participant(w, s, self, NULL, NULL, false, &application);
    if (who) {
        snprintf(uid, sizeof uid, "%u", r->uid);
        snprintf(pid, sizeof pid, "%d", r->pid);
        snprintf(person, sizeof person, "%s@%s", r->user[0] ? r->user : uid, s->host);
        participant(w, s, person, uid, r->user, true, f == ACTIVITY ? &launcher : NULL);
        if (f != ACTIVITY)
            participant(w, s, pid, NULL, r->exe, false, NULL);
    } else if (f != ACTIVITY) {
        participant(w, s, self, NULL, NULL, false, NULL);
    }
}

static void object_start(struct lg_wr *w, const char *id, const char *type, const char *role, const char *cycle, const struct code *id_type, const char *name)
{
    lit(w, "<ParticipantObjectIdentification");
    attribute(w, "ParticipantObjectID", id);
    attribute(w, "ParticipantObjectTypeCode", type);
    attribute(w, "ParticipantObjectTypeCodeRole", role);
    if (cycle)
        attribute(w, "ParticipantObjectDataLifeCycle", cycle);
    lit(w, ">");
    coded(w, "ParticipantObjectIDTypeCode", id_type);
    lit(w, "<ParticipantObjectName>");
    text(w, name);
    lit(w, "</ParticipantObjectName>");
}
static void object_end(struct lg_wr *w) { lit(w, "</ParticipantObjectIdentification>"); }

static void number(struct lg_wr *w, const char *type, uint64_t v)
{
    char s[24];
    snprintf(s, sizeof s, "%llu", (unsigned long long)v);
    detail(w, type, s);
}

/* Where it stands in the log (a receiver tells by it what came twice), and what the standard has no field for. */
static void details(struct lg_wr *w, const struct lg_dicom_event *e, bool alert)
{
    const struct lg_audit_record *r = e->record;
    char s[LG_AUDIT_EVENT_MAX * 2 + LG_AUDIT_TEXT_MAX + 64], id[2 * LG_ID_LEN + 1];
    lg_hex_encode(e->chain->id, 8, id);
    if (!r) {
        snprintf(s, sizeof s, "%s: records %llu to %llu", lg_audit_verdict_name(e->finding->what), (unsigned long long)e->finding->from, (unsigned long long)e->finding->to);
        detail(w, "Alert Description", s);
        detail(w, "Leadglass log", id);
        return;
    }
    snprintf(s, sizeof s, "%s%s%s%s%s", r->event, r->how[0] ? " " : "", r->how, r->text[0] ? ": " : "", r->text);
    detail(w, alert ? "Alert Description" : "Leadglass event", s);
    snprintf(s, sizeof s, "%s %llu", id, (unsigned long long)r->seq);
    detail(w, "Leadglass record", s);
    if (r->has & LG_AUDIT_FILE) {
        lg_hex_encode(r->file, LG_ID_LEN, id);
        detail(w, "Leadglass file", id);
    }
    if (r->has & LG_AUDIT_COUNT) {
        char until[LG_AUDIT_TIME_LEN + 1];
        number(w, "Count", r->count);
        lg_audit_time_text(r->until_us, until);
        detail(w, "Until", until);
    }
    if (r->has & LG_AUDIT_RANGE) {
        number(w, "From", r->from);
        number(w, "To", r->to);
    }
}

static void objects(struct lg_wr *w, const struct lg_dicom_source *s, const struct lg_dicom_event *e, enum family f)
{
    const struct lg_audit_record *r = e->record;
    const char *role = f == ALERT ? "13" : "3", *cycle = f == DELETED ? "15" : NULL; /* security resource, report; permanent erasure */
    char id[LG_AUDIT_NAME_MAX + 8300];
    if (f == ACTIVITY)
        return;
    if (f == LOG_USED) {
        snprintf(id, sizeof id, "file://%s%s", s->host, s->log);
        object_start(w, id, "2", "13", NULL, &uri, "Security Audit Log");
        details(w, e, false);
    } else if (e->study_uid && e->study_uid[0]) {
        object_start(w, e->study_uid, "2", role, cycle, &study_uid, "Study");
        details(w, e, f == ALERT);
    } else if (r && r->has & LG_AUDIT_STUDY) { /* a file that names no study, or a study whose key is gone */
        lg_hex_encode(r->study, LG_ID_LEN, id);
        object_start(w, id, "2", role, cycle, &key_id, "Key");
        details(w, e, f == ALERT);
    } else {
        object_start(w, e->chain->name, "2", "13", cycle, &log_chain, "Access log");
        details(w, e, f == ALERT);
    }
    object_end(w);
    if (e->study_uid && e->study_uid[0] && e->patient_id && e->patient_id[0] && f != LOG_USED) {
        object_start(w, e->patient_id, "1", "1", NULL, &patient_number, "not known here");
        object_end(w);
    }
}

int lg_dicom_encode(const struct lg_dicom_source *s, const struct lg_dicom_event *e, char *out, size_t cap, size_t *ret_len)
{
    const struct rule *rule = rule_of(e);
    const struct lg_audit_record *r = e->record;
    struct lg_wr w = lg_wr(out, cap);
    char when[LG_AUDIT_TIME_LEN + 1], action[2] = { rule->action, 0 }, failed[4];
    if (r && strcmp(r->event, "file.open") == 0)
        action[0] = strcmp(r->how, "create") == 0 ? 'C' : strcmp(r->how, "write") == 0 ? 'U' : 'R';
    lg_audit_time_text(r ? r->time_us : e->finding_us, when);
    snprintf(failed, sizeof failed, "%d", outcome(e));
    lit(&w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?><AuditMessage><EventIdentification");
    attribute(&w, "EventActionCode", action);
    attribute(&w, "EventDateTime", when);
    attribute(&w, "EventOutcomeIndicator", failed);
    lit(&w, ">");
    coded(&w, "EventID", &families[rule->family]);
    if (rule->type)
        coded(&w, "EventTypeCode", rule->type);
    if (r && r->outcome) {
        lit(&w, "<EventOutcomeDescription>");
        text(&w, lg_audit_outcome_name(r->outcome));
        lit(&w, "</EventOutcomeDescription>");
    }
    lit(&w, "</EventIdentification>");
    participants(&w, s, e, rule->family);
    lit(&w, "<AuditSourceIdentification");
    if (s->site && s->site[0])
        attribute(&w, "AuditEnterpriseSiteID", s->site);
    attribute(&w, "AuditSourceID", s->id);
    lit(&w, "><AuditSourceTypeCode csd-code=\"4\"/></AuditSourceIdentification>"); /* application server */
    objects(&w, s, e, rule->family);
    lit(&w, "</AuditMessage>");
    if (w.bad)
        return -ENOSPC;
    *ret_len = w.len;
    return 0;
}
