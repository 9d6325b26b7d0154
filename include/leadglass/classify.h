/* classify.h: which study do these bytes belong to? Pure: no keys, no files, no locks.
 *
 * Streaming: fed the first bytes of a file, in order, as they come; never reads more than it needs, never trusts a length. Understands DICOM
 * Part 10 (PS3.10) in every transfer syntax: implicit and explicit VR little endian, explicit VR big endian, deflated, all encapsulated ones;
 * undefined-length sequences and private elements before the UID; a missing preamble or a missing meta group as common toolkits tolerate them;
 * Orthanc's zlib-compressed attachments (8-byte little-endian size, then a zlib stream) of either kind below, and its DICOM-as-JSON
 * attachments. */
#ifndef LEADGLASS_CLASSIFY_H
#define LEADGLASS_CLASSIFY_H

#include "leadglass/study.h"
#include "leadglass/status.h"
#include <stdbool.h>
#include <stddef.h>

#define LG_CLASSIFY_MAX (256u * 1024u) /* plaintext bytes of a file that may be looked at */

enum lg_class {
    LG_CLASS_MORE = 0,    /* undecided: feed more (never after final, nor after LG_CLASSIFY_MAX bytes) */
    LG_CLASS_STUDY = 1,   /* info is filled in */
    LG_CLASS_GENERAL = 2, /* not something that names a study */
};

struct lg_classifier;
int lg_classifier_new(struct lg_classifier **ret) LG_MUST;
void lg_classifier_free(struct lg_classifier *c);

/* Feeds the next len bytes. final: the file ends here; then the answer is never LG_CLASS_MORE. A study is reported once the elements of the
 * study record that precede the Study Instance UID have been seen (they all have lower tags), so nothing more is waited for.
 * May be called on after a decision (it changes nothing). */
enum lg_class lg_classifier_feed(struct lg_classifier *c, const void *data, size_t len, bool final);

/* After LG_CLASS_STUDY. */
const struct lg_study_info *lg_classifier_info(const struct lg_classifier *c);
/* One phrase of how it was decided, for `leadglass identify`: such as "DICOM explicit VR little endian", "Orthanc JSON in zlib",
 * "no DICOM: starts like a PNG", "damaged: length beyond the end". Static storage. */
const char *lg_classifier_how(const struct lg_classifier *c);

#endif
