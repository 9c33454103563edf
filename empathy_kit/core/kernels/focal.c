/* Focal loss and its gradient, a row at a time: one read of the logits forward, one read and one write backward; or both at once.
 *
 * With e_j = exp(z_j - max z), so = the sum of e_j without the target's, s = so + e_y:
 *   q = so / s, p = e_y / s, nlp = -log p = log1p(so / e_y) where so < e_y, else log s - (z_y - max z)
 *   loss = w_y q^gamma nlp
 *   k = q^gamma + gamma p q^gamma (nlp / q);  gradient: -w_y q k at the target, w_y p_j k elsewhere
 * q is never 1 - p: the tail of sure rows would be lost. nlp / q is 1 at q = 0. Never compiled with -ffast-math, which
 * would undo both.
 *
 * Everything is inlined into the two loops at the end, and those are compiled once per vector extension; the loader picks.
 */
#define _DEFAULT_SOURCE /* for madvise */
#include <stdint.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__GNUC__) && !defined(EMPATHY_KIT_NO_CLONES)
#define CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define CLONES
#endif

INLINE float from_bits(int32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
INLINE int32_t to_bits(float x) { int32_t bits; memcpy(&bits, &x, 4); return bits; }

/* a or b, by their bits: of a conditional expression a compiler may make a branch, and a loop with branches is no vector. */
INLINE float pick(int condition, float a, float b) {
    int32_t mask = -(int32_t)(condition != 0);
    return from_bits((to_bits(a) & mask) | (to_bits(b) & ~mask));
}

/* 2^k e^r for |r| <= log(2) / 2 and -252 <= k <= 0, subnormal results included: a polynomial of degree 6. */
INLINE float scaled_exp(float r, float k) {
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    int32_t whole = (int32_t)k, half = whole / 2; /* in two halves, each a normal number */
    return y * from_bits((half + 127) << 23) * from_bits((whole - half + 127) << 23);
}

INLINE float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; } /* whole number, |x| < 2^22 */

/* exp(a - m) for a <= m: Cody and Waite's reduction. What is lost in the difference is only a rounding of a and m, but exp would
 * make it |a - m| times as large; so it is found (Knuth's two-sum) and put back where the argument is small. */
INLINE float exp_of_difference(float a, float m) {
    float d = a - m, v = d - a;
    float lost = (a - (d - v)) - (m + v);
    int far = d < -110.0f; /* -inf too, of which nothing can be lost */
    d = pick(far, -110.0f, d);
    lost = pick(far, 0.0f, lost);
    float n = nearest(pick(d == d, d, 0.0f) * 1.44269504f); /* no number stays none, but has no whole part */
    return scaled_exp((d - n * 0.693359375f) + (n * 2.12194440e-4f + lost), n);
}

/* 2 atanh t = log((1 + t) / (1 - t)) for |t| <= .172. */
INLINE float twice_atanh(float t) {
    float u = t * t;
    float y = 0.22222222f;
    y = y * u + 0.28571429f;
    y = y * u + 0.4f;
    y = y * u + 0.66666667f;
    return t * u * y + 2.0f * t;
}

/* A positive number, subnormal ones included, as 2^n m with m between sqrt(1/2) and sqrt(2): n, and log m. */
INLINE float log_parts(float x, float *n) {
    int tiny = x < 1.17549435e-38f;
    int32_t bits = to_bits(pick(tiny, x * 8388608.0f, x));
    int32_t e = (bits - 0x3f3504f3) >> 23;
    float m = from_bits(bits - (e << 23));
    *n = (float)e - pick(tiny, 23.0f, 0.0f);
    return twice_atanh((m - 1.0f) / (m + 1.0f));
}

/* q^gamma for 0 <= q <= 1 as 2^(gamma n) m^gamma: gamma log q as one number would be rounded to its own size, and the power
 * with it. The mode is a constant where this is inlined. */
enum { ZERO, ONE, TWO, ANY };
INLINE float power(float q, float gamma, int mode) {
    if (mode == ZERO) return 1.0f;
    if (mode == ONE) return q;
    if (mode == TWO) return q * q;
    float n, y = log_parts(pick(q > 0.0f, q, 1.0f), &n);
    float whole = gamma * n, rest = gamma * y;
    float k = nearest(whole + rest * 1.44269504f);
    k = pick(k < -252.0f, -252.0f, k);
    float over = whole - k; /* to the power of two; small, unless the result is 0 anyway */
    over = pick(over < -1e6f, -1e6f, over);
    float r = over * 0.693359375f - over * 2.12194440e-4f + rest;
    float found = scaled_exp(pick(r < -0.35f, -0.35f, r), k);
    found = pick(whole + rest * 1.44269504f < -160.0f, 0.0f, found);
    return pick(q > 0.0f, found, pick(gamma == 0.0f, 1.0f, 0.0f));
}

/* -log p. Where the target is the likeliest, e_y is 1, and what 1 + so has lost is put back: exact in the small. */
INLINE float nlp_(float so, float ey, float s, float inverse, float behind) { /* behind = max z - z_y */
    float n, y = log_parts(s, &n);
    float rest = pick(so < ey, (so - (s - 1.0f)) * inverse, behind);
    return n * 0.693359375f + ((y - n * 2.12194440e-4f) + rest) + (s - s); /* of what is no number, the bits would make one */
}

INLINE float loss_of(float so, float ey, float behind, float gamma, int mode) {
    float s = so + ey, inverse = 1.0f / s;
    return power(so / s, gamma, mode) * nlp_(so, ey, s, inverse, behind);
}

/* k / s: the gradient is -so times it at the target, e_j times it elsewhere. The loss too, which costs next to nothing here. */
INLINE float k_and_loss_of(float so, float ey, float behind, float gamma, int mode, float *loss) {
    float s = so + ey, inverse = 1.0f / s;
    float n = nlp_(so, ey, s, inverse, behind);
    *loss = n;
    if (mode == ZERO) return inverse;
    /* p n / q = e_y n / so: 1 where so is 0; 0 where e_y is, though n may be infinite. */
    int some = so > 0.0f;
    float ratio = pick(some, n, 1.0f) / pick(some, so, 1.0f);
    ratio = pick(ey > 0.0f, ey * ratio, 0.0f);
    float qg = power(so * inverse, gamma, mode);
    *loss = qg * n;
    return (qg + gamma * qg * ratio) * inverse;
}

/* Losses; gradients, from a gradient of each loss; or gradients from one that all share, as a mean's is, and beside them the sum of
 * the losses, which costs nothing more. */
enum { FORWARD, EACH, SHARED };

/* Three levels: rows side by side in a vector. */
INLINE int64_t three(const float *restrict z, const int64_t *restrict y, int64_t n, const float *restrict gamma,
                     const float *restrict w, const float *restrict up, float *restrict out, double *sum, int way, int mode) {
    const float one = way == SHARED ? up[0] : 1.0f;
    const float g0 = gamma[0], g1 = gamma[1], g2 = gamma[2], w0 = w[0], w1 = w[1], w2 = w[2];
    int32_t bad = 0;
    double total = 0.0;
#pragma omp simd reduction(| : bad) reduction(+ : total)
    for (int64_t i = 0; i < n; i++) {
        float a = z[3 * i], b = z[3 * i + 1], c = z[3 * i + 2];
        int32_t t = (int32_t)y[i];
        bad |= (y[i] < 0) | (y[i] > 2);
        /* The largest one's exp is 1, and no number where it is infinite or none: only the two others' are computed. */
        int ma = (a >= b) & (a >= c), mb = !ma & (b >= c), mc = !ma & !mb;
        float m = pick(ma, a, pick(mb, b, c)), unit = 1.0f + (m - m);
        float eu = exp_of_difference(pick(ma, b, a), m), ev = exp_of_difference(pick(mc, b, c), m);
        float ea = pick(ma, unit, eu), eb = pick(mb, unit, pick(ma, eu, ev)), ec = pick(mc, unit, ev);
        int is0 = t == 0, is1 = t == 1;
        float ey = pick(is0, ea, pick(is1, eb, ec));
        float so = pick(is0, eb, ea) + pick(is0 | is1, ec, eb);
        float zy = pick(is0, a, pick(is1, b, c));
        float weight = pick(is0, w0, pick(is1, w1, w2));
        float g = pick(is0, g0, pick(is1, g1, g2));
        float behind = m - zy;
        if (way == FORWARD) {
            out[i] = weight * loss_of(so, ey, behind, g, mode);
        } else {
            float loss, scale = weight * k_and_loss_of(so, ey, behind, g, mode, &loss) * (way == EACH ? up[i] : one);
            if (way == SHARED) total += (double)(weight * loss);
            float target = -scale * so;
            out[3 * i] = pick(is0, target, scale * ea);
            out[3 * i + 1] = pick(is1, target, scale * eb);
            out[3 * i + 2] = pick(is0 | is1, scale * ec, target);
        }
    }
    *sum = total;
    return bad;
}

/* The sum of exp(row - m) over some columns, which are also kept where there is a place for them. In double: small terms that
 * are alike would all be rounded to the same side beside a large one. */
INLINE double sum_of_exp(const float *restrict row, int64_t from, int64_t to, float m, float *restrict into, int keep) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = from; j < to; j++) {
        float e = exp_of_difference(row[j], m);
        if (keep) into[j] = e;
        sum += (double)e;
    }
    return sum;
}

/* Any number of classes: a row at a time, its columns side by side in a vector. */
INLINE int64_t many(const float *restrict z, const int64_t *restrict y, int64_t n, int64_t c, const float *restrict gamma,
                    const float *restrict w, const float *restrict up, float *restrict out, double *total, int way, int mode) {
    int64_t bad = 0;
    *total = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const float *restrict row = z + i * c;
        int64_t t = y[i];
        if (t < 0 || t >= c) {
            bad = 1;
            continue;
        }
        float m = row[0];
#pragma omp simd reduction(max : m)
        for (int64_t j = 0; j < c; j++) m = row[j] > m ? row[j] : m;
        float ey = exp_of_difference(row[t], m), behind = m - row[t];
        float *restrict into = out + i * c;
        /* The target's own share is left out, not taken away: a difference would lose the tail of a sure row. */
        float so = way != FORWARD ? (float)(sum_of_exp(row, 0, t, m, into, 1) + sum_of_exp(row, t + 1, c, m, into, 1))
                            : (float)(sum_of_exp(row, 0, t, m, 0, 0) + sum_of_exp(row, t + 1, c, m, 0, 0));
        if (way == FORWARD) {
            out[i] = w[t] * loss_of(so, ey, behind, gamma[t], mode);
        } else {
            float loss, scale = w[t] * k_and_loss_of(so, ey, behind, gamma[t], mode, &loss) * up[way == EACH ? i : 0];
            *total += (double)(w[t] * loss);
#pragma omp simd
            for (int64_t j = 0; j < c; j++) into[j] *= scale;
            into[t] = -scale * so;
        }
    }
    return bad;
}

typedef int64_t block(const float *z, const int64_t *y, int64_t n, int64_t c, const float *gamma, const float *w, const float *up,
                      float *out, double *sum, int mode);

#define CASE(way, mode)                                                                                                       \
    case mode:                                                                                                                \
        return c == 3 ? three(z, y, n, gamma, w, up, out, sum, way, mode) : many(z, y, n, c, gamma, w, up, out, sum, way, mode);
#define BLOCK(name, way)                                                                                                      \
    CLONES static int64_t name(const float *z, const int64_t *y, int64_t n, int64_t c, const float *gamma, const float *w,    \
                               const float *up, float *out, double *sum, int mode) {                                          \
        switch (mode) { CASE(way, ZERO) CASE(way, ONE) CASE(way, TWO) default: CASE(way, ANY) }                               \
    }
BLOCK(forward_block, FORWARD)
BLOCK(each_block, EACH)
BLOCK(shared_block, SHARED)

/* A gradient beyond what malloc keeps (32 MiB) lies in memory that the system has yet to find and clear: in large pages, that takes
 * far less time. Smaller ones are mostly memory that was used before, and better left alone. */
static void in_large_pages(float *out, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    const uintptr_t page = 1 << 21, from = ((uintptr_t)out + page - 1) & ~(page - 1), to = ((uintptr_t)out + bytes) & ~(page - 1);
    if (bytes > 1 << 25) madvise((void *)from, to - from, MADV_HUGEPAGE); /* a wish: if it is not granted, nothing is lost */
#else
    (void)out, (void)bytes;
#endif
}

enum { MOST_THREADS = 256 };

/* Rows are shared out among threads in whole blocks. What is returned is 1 where a target is out of range, 2 where a gamma or a
 * weight is negative. */
static int64_t all(block *run, int way, const float *z, const int64_t *y, int64_t n, int64_t c, const float *gamma,
                   const float *w, const float *up, float *out, double *sum, int mode, int threads) {
    int64_t bad = 0, out_step = way == FORWARD ? 1 : c;
    double parts[MOST_THREADS] = {0.0};
    for (int64_t j = 0; j < c; j++) /* of no number, too */
        if (!(gamma[j] >= 0.0f) || !(w[j] >= 0.0f)) return 2;
    if (n * c < 32768) threads = 1; /* what a second thread would cost is more than what it saves */
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    in_large_pages(out, n * out_step * (int64_t)sizeof(float));
    int64_t size = (n + threads - 1) / threads;
    size = (size + 15) / 16 * 16;
#pragma omp parallel for num_threads(threads) reduction(| : bad) schedule(static)
    for (int64_t at = 0; at < threads; at++) {
        int64_t first = at * size, rows = n - first < size ? n - first : size;
        if (rows > 0)
            bad |= run(z + first * c, y + first, rows, c, gamma, w, way == EACH ? up + first : up, out + first * out_step,
                       &parts[at], mode);
    }
    *sum = 0.0;
    for (int64_t at = 0; at < threads; at++) *sum += parts[at]; /* in order, so that the same call gives the same bits */
    return bad;
}

int64_t empathy_kit_focal_forward(const float *z, const int64_t *y, int64_t n, int64_t c, const float *gamma, const float *w,
                                  float *loss, int mode, int threads) {
    double unused;
    return all(forward_block, FORWARD, z, y, n, c, gamma, w, 0, loss, &unused, mode, threads);
}

/* up has n gradients, or one that is shared. */
int64_t empathy_kit_focal_backward(const float *z, const int64_t *y, int64_t n, int64_t c, const float *gamma, const float *w,
                                   const float *up, int shared, float *gradient, int mode, int threads) {
    double unused;
    return shared ? all(shared_block, SHARED, z, y, n, c, gamma, w, up, gradient, &unused, mode, threads)
                  : all(each_block, EACH, z, y, n, c, gamma, w, up, gradient, &unused, mode, threads);
}

/* The mean of the losses, and its gradient; no number where there is no row. */
int64_t empathy_kit_focal_mean(const float *z, const int64_t *y, int64_t n, int64_t c, const float *gamma, const float *w,
                               float *mean, float *gradient, int mode, int threads) {
    double sum = 0.0;
    float up = 1.0f / (float)n;
    int64_t bad = all(shared_block, SHARED, z, y, n, c, gamma, w, &up, gradient, &sum, mode, threads);
    *mean = (float)(sum / (double)n);
    return bad;
}

/* Which of the clones runs on this machine. */
const char *empathy_kit_focal_path(void) {
#if defined(__x86_64__) && defined(__GNUC__) && !defined(EMPATHY_KIT_NO_CLONES)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return "AVX-512";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "AVX2";
#endif
    return "plain";
}
