/* The generator of sized cases (golden/README.md) in C: words, tensors, probes and signs.
 *
 *     cc -std=c99 -O2 -o sized sized.c -lm
 *     ./sized words SEED NAME FIRST COUNT
 *     ./sized tensor PROFILE SEED NAME ROWS COLUMNS [BELOW]       a row of the last axis has COLUMNS elements
 *     ./sized probes SEED NAME LENGTH...                          the numbers of the 64 elements of a shape
 *     ./sized signs SEED NAME COUNT
 *
 * Copy what stands between the two rulers into a test or a kernel; it needs ldexp and INFINITY of <math.h> alone.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the generator ---------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static uint64_t stream(uint64_t seed, const char *name) {
    uint64_t h = UINT64_C(0xCBF29CE484222325);
    for (; *name; name++) h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001B3);
    return mix(seed + h);
}

static uint64_t word(uint64_t s, uint64_t i) { return mix(s + (i + 1) * UINT64_C(0x9E3779B97F4A7C15)); }

static uint64_t below(uint64_t w, uint64_t n) { return ((w >> 32) * n) >> 32; }

/* A number from its word w, the word of its row, its column and the length of the row. */
static double number(const char *profile, uint64_t w, uint64_t row, uint64_t column, uint64_t n) {
    double sixes = (double)(w >> 58) + (w >> 52 & 63) + (w >> 46 & 63) + (w >> 40 & 63) - 126;
    double top = (double)(w >> 57), sign = w & 1 ? -1 : 1;
    if (!strcmp(profile, "positive")) return ldexp(top + 1, -6);
    if (!strcmp(profile, "peaked")) return ldexp(sixes, w & 15 ? -5 : -1);
    if (!strcmp(profile, "offset")) return ldexp(248 + (double)(w >> 61), -5);
    if (!strcmp(profile, "low")) return -ldexp(248 + (double)(w >> 61), 2);
    if (!strcmp(profile, "wide")) return sign * ldexp(128 + top, (int)(w >> 8 & 15) - 15);
    if (!strcmp(profile, "subnormal")) return sign * ldexp((double)(w >> 57 | 1), -133);
    if (!strcmp(profile, "masked") && (!(w & 3) || !(row & 3))) return -INFINITY;
    if (!strcmp(profile, "outlier") && below(row, n) == column) return row & 1 ? -1020 : 1020;
    return ldexp(sixes, -5); /* normal */
}

static uint64_t coordinate(uint64_t w, int j, uint64_t n) { /* of probe j along an axis of n */
    uint64_t tile = (w & 3) == 3 ? 1024 : UINT64_C(32) << (w & 3), border;
    if (j < 8) return w & 1 ? n - 1 : 0;
    if (j >= 32) return below(w, n);
    border = tile * below(w, n / tile + 1);
    if (border) border -= w >> 2 & 1;
    return border < n ? border : n - 1;
}

/* ----------------------------------------------------------------------------------------------------------------- */

static uint64_t whole(const char *text) { return strtoull(text, NULL, 10); }

static uint64_t stream_of(const char *kind, const char *seed, const char *name) {
    char full[200];
    snprintf(full, sizeof full, "%s%s", kind, name);
    return stream(whole(seed), full);
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    if (!strcmp(what, "words") && count == 6) {
        uint64_t s = stream_of("", words[2], words[3]), first = whole(words[4]);
        for (uint64_t i = 0; i < whole(words[5]); i++) printf("%016" PRIx64 "\n", word(s, first + i));
    } else if (!strcmp(what, "tensor") && (count == 7 || count == 8)) {
        uint64_t s = stream_of("", words[3], words[4]), rows = whole(words[5]), n = whole(words[6]);
        for (uint64_t i = 0; i < rows * n; i++) {
            uint64_t w = word(s, i), row = word(s, rows * n + i / n);
            if (count == 8) printf("%" PRIu64 "\n", below(w, whole(words[7])));
            else printf("%.17g\n", number(words[2], w, row, i % n, n));
        }
    } else if (!strcmp(what, "probes") && count > 4) {
        uint64_t s = stream_of("probes.", words[2], words[3]);
        for (int j = 0; j < 64; j++) {
            uint64_t place = 0;
            for (int a = 0; a + 4 < count; a++) {
                uint64_t n = whole(words[a + 4]);
                place = place * n + coordinate(word(s, 8 * (uint64_t)j + (uint64_t)a), j, n);
            }
            printf("%" PRIu64 "\n", place);
        }
    } else if (!strcmp(what, "signs") && count == 5) {
        uint64_t s = stream_of("signs.", words[2], words[3]);
        for (uint64_t i = 0; i < whole(words[4]); i++) puts(word(s, i) >> 63 ? "-1" : "1");
    } else {
        fprintf(stderr, "usage: sized words | tensor | probes | signs ..., as the first lines of sized.c say\n");
        return 2;
    }
    return 0;
}
