/* shares.h: a secret in n shares of which any k give it back and fewer tell nothing (Shamir, "How to share a secret", 1979, over GF(2^8)), and the text that a
 * share is printed as. The text is docs/FORMAT-keyring.md, "Shares". Pure, but for the random numbers of splitting. */
#ifndef LEADGLASS_SHARES_H
#define LEADGLASS_SHARES_H

#include "leadglass/secret.h"

#define LG_SHARES_MAX 32u
#define LG_SHARE_SET_LEN 8u
#define LG_SHARE_GROUPS 10u /* in a printed share, a line each */

struct lg_share { /* keep in secret memory */
    uint8_t set[LG_SHARE_SET_LEN]; /* of one splitting: shares of two do not mix */
    uint8_t k, n, x;               /* k of n; x: its number, 1 to n */
    uint8_t y[LG_KEY_LEN];
};

/* 2 <= k <= n <= LG_SHARES_MAX, else -EINVAL. out: n shares. */
int lg_shares_split(const struct lg_secret *secret, unsigned k, unsigned n, struct lg_share *out) LG_MUST;
/* Of n shares the first k; the others have to be of the same set too. -EXDEV: not of one set. -EEXIST: one stands there twice. -ENODATA: fewer than k.
 * Whether it is the right secret only its user can tell. */
int lg_shares_join(const struct lg_share *s, unsigned n, struct lg_secret *ret) LG_MUST;

/* The lines of a printed share, each ended by a newline, and a NUL: secret memory. title: what it is of. */
#define LG_SHARE_TEXT_MAX 1024u
int lg_share_text(const struct lg_share *s, const char *title, char out[LG_SHARE_TEXT_MAX]) LG_MUST;
/* Reads it as printed or typed: case, hyphens and spaces do not matter, nor whether O and 0, I, L and 1 were told apart, nor whether the groups' numbers stand before them.
 * Lines that begin with # or are empty are passed over.
 * -EPROTO: *bad_group is the group (1 to LG_SHARE_GROUPS) that is mistyped or missing; 0: each is good, but they are not one share's. -E2BIG: lines behind it. */
int lg_share_parse(const char *untrusted, size_t len, struct lg_share *ret, unsigned *bad_group) LG_MUST;
/* One line, as a person types it: -EPROTO; -ERANGE: neither is it right, and printed with another group's number; -ENODATA: one that is passed over. number: 1 to LG_SHARE_GROUPS. */
int lg_share_group_check(const char *untrusted, size_t len, unsigned number) LG_MUST;

#endif
