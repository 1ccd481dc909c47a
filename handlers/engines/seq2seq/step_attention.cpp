// softmax(q k^T + bias) v for the few queries of a decoding step, over keys and values cached in bf16; in float32.
//
// Keys and values are read once for up to four queries of a text, in one pass, with the running maximum of Milakov and
// Gimelshein 2018 (https://arxiv.org/abs/1805.02867), about as fast as memory gives them. step_attention.py builds and
// calls it; it needs g++ 11 for a CPU with AVX-512.

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

constexpr int LANES = 16;
constexpr int AHEAD = 32;        // keys or values: what is fetched from memory while others are computed
constexpr float LEAST = -1e30f;  // below any score, and nothing overflows that is computed with it

using Bf16 = std::uint16_t;
using Floats = float __attribute__((vector_size(4 * LANES)));
using Words = std::int32_t __attribute__((vector_size(4 * LANES)));
using Halves = Bf16 __attribute__((vector_size(2 * LANES)));

// [texts * beams, heads, size], each row of it without gaps.
struct Queries {
    const Bf16* data;
    std::int64_t row_step, texts, beams, heads;
};

// Keys and values [texts, heads, length, size], each head of it without gaps. Of each text `lengths` count, or `length`
// where that is null. `bias` [heads, length] may be null.
struct Source {
    const Bf16 *keys, *values;
    std::int64_t text_step, head_step, length;
    const std::int64_t* lengths;
    const Bf16* bias;
    std::int64_t bias_step;
};

constexpr Words PLACES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

Floats load(const Bf16* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    return reinterpret_cast<Floats>(__builtin_convertvector(halves, Words) << 16);
}

void store(Floats x, Bf16* to) {
    const Words bits = reinterpret_cast<Words>(x);
    const Halves halves = __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, Halves);
    std::memcpy(to, &halves, sizeof halves);
}

// 2^(x log2 e), its fraction by the Taylor series: exact to 3e-6 where x is at least -87, and next to 0 below.
Floats exponential(Floats x) {
    constexpr float SHIFT = 0x1.8p23f;  // what is added to it has its whole number in the lowest bits
    x = (x < -87.0f ? -87.0f : x) * 1.442695041f;
    const Floats whole = x + SHIFT, f = x - (whole - SHIFT);
    const Floats power =
        1.0f + f * (0.69314718f + f * (0.24022651f + f * (0.05550411f + f * (0.00961813f + f * 0.00133336f))));
    return reinterpret_cast<Floats>(reinterpret_cast<Words>(power) + (reinterpret_cast<Words>(whole) << 23));
}

// Groups of 2 * HALF lanes of a and b, each added up to HALF lanes.
template <int HALF>
Floats fold(Floats a, Floats b) {
    const Words low = PLACES / HALF * (2 * HALF) + PLACES % HALF;
    return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, low + HALF);
}

// The sum over x[i]'s lanes in lane i.
Floats sums(Floats (&x)[LANES]) {
    for (int i = 0; i < 8; ++i) x[i] = fold<8>(x[2 * i], x[2 * i + 1]);
    for (int i = 0; i < 4; ++i) x[i] = fold<4>(x[2 * i], x[2 * i + 1]);
    for (int i = 0; i < 2; ++i) x[i] = fold<2>(x[2 * i], x[2 * i + 1]);
    return fold<1>(x[0], x[1]);
}

float largest_of(Floats x) {
    float most = x[0];
    for (int i = 1; i < LANES; ++i) most = x[i] > most ? x[i] : most;
    return most;
}

float sum_of(Floats x) {
    float sum = 0;
    for (int i = 0; i < LANES; ++i) sum += x[i];
    return sum;
}

// BEAMS queries of one head to its keys and values [length, SIZE].
template <int SIZE, int BEAMS>
void attend(const Bf16* q, std::int64_t q_step, const Bf16* k, const Bf16* v, std::int64_t length, const Bf16* bias,
            Bf16* out, std::int64_t out_step) {
    constexpr int PARTS = SIZE / LANES;
    Floats query[BEAMS][PARTS], sum[BEAMS][PARTS] = {}, total[BEAMS] = {};
    float largest[BEAMS];
    for (int beam = 0; beam < BEAMS; ++beam) {
        largest[beam] = LEAST;
        for (int part = 0; part < PARTS; ++part) query[beam][part] = load(q + beam * q_step + part * LANES);
    }
    for (std::int64_t first = 0; first < length; first += LANES) {
        const int count = std::min<std::int64_t>(LANES, length - first);
        Floats products[BEAMS][LANES] = {}, weights[BEAMS];
        for (int i = 0; i < count; ++i) {
            Floats product[BEAMS] = {};
            for (int part = 0; part < PARTS; ++part) {
                const Bf16* at = k + (first + i) * SIZE + part * LANES;
                __builtin_prefetch(at + AHEAD * SIZE);
                const Floats key = load(at);
                for (int beam = 0; beam < BEAMS; ++beam) product[beam] += query[beam][part] * key;
            }
            for (int beam = 0; beam < BEAMS; ++beam) products[beam][i] = product[beam];
        }
        Floats more = {};
        if (bias) {
            Bf16 near[LANES] = {};
            std::copy_n(bias + first, count, near);
            more = load(near);
        }
        for (int beam = 0; beam < BEAMS; ++beam) {
            Floats scores = sums(products[beam]) + more;
            scores = PLACES < count ? scores : LEAST;
            const float most = std::max(largest[beam], largest_of(scores));
            if (most > largest[beam]) {
                const Floats factor = exponential(Floats{} + (largest[beam] - most));
                total[beam] *= factor;
                for (int part = 0; part < PARTS; ++part) sum[beam][part] *= factor;
                largest[beam] = most;
            }
            weights[beam] = exponential(scores - largest[beam]);
            total[beam] += weights[beam];
        }
        for (int i = 0; i < count; ++i)
            for (int part = 0; part < PARTS; ++part) {
                const Bf16* at = v + (first + i) * SIZE + part * LANES;
                __builtin_prefetch(at + AHEAD * SIZE);
                const Floats value = load(at);
                for (int beam = 0; beam < BEAMS; ++beam) sum[beam][part] += weights[beam][i] * value;
            }
    }
    for (int beam = 0; beam < BEAMS; ++beam)
        for (int part = 0; part < PARTS; ++part)
            store(sum[beam][part] / sum_of(total[beam]), out + beam * out_step + part * LANES);
}

template <int SIZE>
void attend_all(const Queries& q, const Source& source, Bf16* out) {
    const std::int64_t width = q.heads * SIZE;
#pragma omp parallel for collapse(2) schedule(dynamic, 4)
    for (std::int64_t text = 0; text < q.texts; ++text)
        for (std::int64_t head = 0; head < q.heads; ++head) {
            const std::int64_t at = text * source.text_step + head * source.head_step;
            const std::int64_t length = source.lengths ? source.lengths[text] : source.length;
            const Bf16* bias = source.bias ? source.bias + head * source.bias_step : nullptr;
            for (std::int64_t beam = 0, several; beam < q.beams; beam += several) {
                const std::int64_t row = text * q.beams + beam, left = q.beams - beam;
                several = left >= 4 ? 4 : left >= 2 ? 2 : 1;
                const auto run = several == 4 ? attend<SIZE, 4> : several == 2 ? attend<SIZE, 2> : attend<SIZE, 1>;
                run(q.data + row * q.row_step + head * SIZE, q.row_step, source.keys + at, source.values + at, length,
                    bias, out + row * width + head * SIZE, width);
            }
        }
}

}  // namespace

// Steps count numbers; `size` is one of step_attention.py's SIZES.
extern "C" void step_attention(const Queries* q, const Source* source, Bf16* out, std::int64_t size) {
    switch (size) {
        case 32: return attend_all<32>(*q, *source, out);
        case 64: return attend_all<64>(*q, *source, out);
        case 128: return attend_all<128>(*q, *source, out);
    }
}
