/* study.h: what is known of a study, shared by classifier, key manager and tools. Lengths are DICOM's (PS3.5 section 6.2), in
 * bytes, one more for the NUL. */
#ifndef LEADGLASS_STUDY_H
#define LEADGLASS_STUDY_H

#include <stdint.h>

#define LG_UID_MAX 64u          /* UI */
#define LG_PATIENT_ID_MAX 256u  /* LO is 64 characters, up to 4 bytes each in UTF-8 */
#define LG_ACCESSION_MAX 64u    /* SH is 16 characters */
#define LG_DATE_MAX 8u          /* DA */
#define LG_MODALITY_MAX 16u     /* CS */

struct lg_study_info {
    char uid[LG_UID_MAX + 1];               /* (0020,000D), never empty when a study is known */
    char patient_id[LG_PATIENT_ID_MAX + 1]; /* (0010,0020), may be empty, as all below */
    char accession[LG_ACCESSION_MAX + 1];   /* (0008,0050) */
    char date[LG_DATE_MAX + 1];             /* (0008,0020), YYYYMMDD */
    char modality[LG_MODALITY_MAX + 1];     /* (0008,0060) */
};

#define LG_ID_LEN 16u /* key ids, vault ids, file ids, directory ids: random */

/* Key states, NIST SP 800-57 Part 1 names where it has them. Stored and sent as these numbers. */
enum lg_key_state {
    LG_KEY_ACTIVE = 1,
    LG_KEY_SUSPENDED = 2,
    LG_KEY_DESTROY_APPROVED = 3, /* unreadable, waiting */
    LG_KEY_DESTROYING = 4,       /* the destroying sequence is under way and resumes at unlock */
    LG_KEY_DESTROYED = 5,
    LG_KEY_COMPROMISED = 6,
    LG_KEY_RESTORED = 7,         /* quarantine after a restore */
};
const char *lg_key_state_name(enum lg_key_state s);

/* What a key is for. */
enum lg_key_kind {
    LG_KIND_STUDY = 1,
    LG_KIND_GENERAL = 2,     /* a vault's files that name no study */
    LG_KIND_PROVISIONAL = 3, /* bytes on disk before their study was known; attached to a study later */
    LG_KIND_VAULT = 4,       /* names, headers and extended attributes of one vault */
};

#endif
