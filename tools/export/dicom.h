/* DICOM audit messages (PS3.15 A.5): what a record of the access log is in the standard's terms. Pure. docs/AUDIT.md, "Export", has the table. */
#ifndef LG_EXPORT_DICOM_H
#define LG_EXPORT_DICOM_H

#include "leadglass/audit.h"

#define LG_DICOM_MAX 32768u /* a message; PS3.15 A.6: receivers take at least so much */

/* Who reports. */
struct lg_dicom_source {
    const char *id;   /* AuditSourceID */
    const char *site; /* AuditEnterpriseSiteID; NULL or empty: left out */
    const char *host; /* where it happened */
    const char *log;  /* directory of the access log */
};
/* A record, and what is known about it. */
struct lg_dicom_event {
    const struct lg_audit_record *record;   /* NULL: a finding about the chain itself, in finding */
    const struct lg_audit_problem *finding;
    int64_t finding_us;                     /* when it was found */
    const struct lg_audit_chain *chain;
    const char *study_uid, *patient_id;     /* of the record's key; NULL or empty: not known */
};

/* Is there a message for it? Not for what the log keeps for itself: docs/AUDIT.md lists it. */
bool lg_dicom_wanted(const struct lg_dicom_event *e);
/* Was it refused, or worse: what syslog calls a warning rather than a notice. */
bool lg_dicom_warning(const struct lg_dicom_event *e);
/* One XML document without line breaks. -ENOSPC: it does not fit (LG_DICOM_MAX suffices for every record). */
int lg_dicom_encode(const struct lg_dicom_source *s, const struct lg_dicom_event *e, char *out, size_t cap, size_t *ret_len) LG_MUST;

#endif
