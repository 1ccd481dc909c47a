// Attention of a decoding step: softmax(q k^T + bias) v for few queries, in float32. Keys and values are bf16, float32
// or int8.
//
// Keys and values are read once for up to four queries of a text (for each query if `is_causal`), in one pass with a
// running maximum (Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867), nearly at the speed of memory.
// step_kernels.py compiles this file, which needs g++ 11, for CPUs with AVX-512 and with AVX2;
// handlers/engines/seq2seq/decode_attention.py calls it.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "step_kernels.h"
#include "vectors.h"

namespace {

constexpr int PREFETCH_ROWS = 32;    // keys or values ahead of the current ones
constexpr int CACHE_LINE = 64;
constexpr float MIN_SCORE = -1e30f;  // below any score, and small enough in magnitude not to overflow

#ifdef __AVX512F__
constexpr Words LANE_INDICES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
constexpr Words LANE_INDICES = {0, 1, 2, 3, 4, 5, 6, 7};
#endif

// Add up the two halves of each group of 2 * HALF lanes of a and b.
template <int HALF>
Floats fold(Floats a, Floats b) {
    const Words low = LANE_INDICES / HALF * (2 * HALF) + LANE_INDICES % HALF;
    return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, low + HALF);
}

// Return the sum over the lanes of x[i] in lane i.
Floats sums(Floats (&x)[LANES]) {
    if constexpr (LANES == 16)
        for (int i = 0; i < 8; ++i) x[i] = fold<8>(x[2 * i], x[2 * i + 1]);
    for (int i = 0; i < 4; ++i) x[i] = fold<4>(x[2 * i], x[2 * i + 1]);
    for (int i = 0; i < 2; ++i) x[i] = fold<2>(x[2 * i], x[2 * i + 1]);
    return fold<1>(x[0], x[1]);
}

// Load a part of a key or value, and prefetch the row that is needed PREFETCH_ROWS later.
template <int SIZE, typename Stored>
Floats load_part(const Stored* row, int part) {
    const Stored* at = row + part * LANES;
    if (part * LANES * sizeof(Stored) % CACHE_LINE == 0) __builtin_prefetch(at + PREFETCH_ROWS * SIZE);
    return load(at);
}

// The keys and values of one head, [length, SIZE], and the scale of each, if they are int8.
template <typename Stored>
struct Head {
    const Stored *keys, *values;
    const float *key_scales, *value_scales;
};

// Attention of BEAMS queries of one head to its keys and values.
template <int SIZE, int BEAMS, typename Element, typename Stored>
void attend(const Element* q, std::int64_t q_stride, const Head<Stored>& head, std::int64_t length, const Element* bias,
            Element* out, std::int64_t out_stride) {
    constexpr int PARTS = SIZE / LANES;
    constexpr bool HAS_SCALES = std::is_same_v<Stored, std::int8_t>;
    Floats query[BEAMS][PARTS], sum[BEAMS][PARTS] = {}, total[BEAMS] = {};
    float maximum[BEAMS];
    for (int beam = 0; beam < BEAMS; ++beam) {
        maximum[beam] = MIN_SCORE;
        for (int part = 0; part < PARTS; ++part) query[beam][part] = load(q + beam * q_stride + part * LANES);
    }
    for (std::int64_t first = 0; first < length; first += LANES) {
        const int count = std::min<std::int64_t>(LANES, length - first);
        Floats products[BEAMS][LANES] = {}, weights[BEAMS];
        for (int i = 0; i < count; ++i) {
            Floats product[BEAMS] = {};
            for (int part = 0; part < PARTS; ++part) {
                const Floats key = load_part<SIZE>(head.keys + (first + i) * SIZE, part);
                for (int beam = 0; beam < BEAMS; ++beam) product[beam] += query[beam][part] * key;
            }
            for (int beam = 0; beam < BEAMS; ++beam) products[beam][i] = product[beam];
        }
        const Floats key_bias = bias ? load_block(bias + first, count) : Floats{};
        Floats key_scales, value_scales;
        if constexpr (HAS_SCALES) {
            key_scales = load_block(head.key_scales + first, count);
            value_scales = load_block(head.value_scales + first, count);
        }
        for (int beam = 0; beam < BEAMS; ++beam) {
            Floats scores = sums(products[beam]);
            if constexpr (HAS_SCALES) scores *= key_scales;
            scores += key_bias;
            scores = LANE_INDICES < count ? scores : MIN_SCORE;
            const float new_maximum = std::max(maximum[beam], max_of(scores));
            if (new_maximum > maximum[beam]) {
                const Floats factor = exponential(Floats{} + (maximum[beam] - new_maximum));
                total[beam] *= factor;
                for (int part = 0; part < PARTS; ++part) sum[beam][part] *= factor;
                maximum[beam] = new_maximum;
            }
            weights[beam] = exponential(scores - maximum[beam]);
            total[beam] += weights[beam];
            if constexpr (HAS_SCALES) weights[beam] *= value_scales;
        }
        for (int i = 0; i < count; ++i)
            for (int part = 0; part < PARTS; ++part) {
                const Floats value = load_part<SIZE>(head.values + (first + i) * SIZE, part);
                for (int beam = 0; beam < BEAMS; ++beam) sum[beam][part] += weights[beam][i] * value;
            }
    }
    for (int beam = 0; beam < BEAMS; ++beam)
        for (int part = 0; part < PARTS; ++part)
            store(sum[beam][part] / sum_of(total[beam]), out + beam * out_stride + part * LANES);
}

template <int SIZE, typename Element, typename Stored>
void attend_all(const Queries& q, const KeysValues& kv, Element* out) {
    const std::int64_t width = q.heads * SIZE;
    const auto* queries = static_cast<const Element*>(q.data);
    const auto *keys = static_cast<const Stored*>(kv.keys), *values = static_cast<const Stored*>(kv.values);
#pragma omp parallel for collapse(2) schedule(dynamic, 4)
    for (std::int64_t text = 0; text < q.texts; ++text)
        for (std::int64_t head = 0; head < q.heads; ++head) {
            const std::int64_t offset = text * kv.text_stride + head * kv.head_stride;
            Head<Stored> head_kv = {keys + offset, values + offset, nullptr, nullptr};
            if (kv.key_scales) {
                head_kv.key_scales = kv.key_scales + offset / SIZE;
                head_kv.value_scales = kv.value_scales + offset / SIZE;
            }
            const std::int64_t end = q.offsets ? q.offsets[text + 1] : (text + 1) * q.beams;
            for (std::int64_t row = q.offsets ? q.offsets[text] : text * q.beams, count; row < end; row += count) {
                const std::int64_t remaining = end - row;
                count = kv.is_causal ? 1 : remaining >= 4 ? 4 : remaining >= 2 ? 2 : 1;
                const std::int64_t length =
                    (kv.lengths ? kv.lengths[text] : kv.length) - (kv.is_causal ? remaining - 1 : 0);
                const Element* bias = kv.bias ? static_cast<const Element*>(kv.bias) + head * kv.bias_stride : nullptr;
                if (bias && kv.is_causal) bias += kv.bias_length - length;
                const auto run = count == 4 ? attend<SIZE, 4, Element, Stored>
                                 : count == 2 ? attend<SIZE, 2, Element, Stored>
                                              : attend<SIZE, 1, Element, Stored>;
                run(queries + row * q.row_stride + head * SIZE, q.row_stride, head_kv, length, bias,
                    out + row * width + head * SIZE, width);
            }
        }
}

template <typename Element, typename Stored>
void attend_sized(const Queries& q, const KeysValues& kv, void* out, std::int64_t size) {
    switch (size) {
        case 32: return attend_all<32, Element, Stored>(q, kv, static_cast<Element*>(out));
        case 64: return attend_all<64, Element, Stored>(q, kv, static_cast<Element*>(out));
        case 128: return attend_all<128, Element, Stored>(q, kv, static_cast<Element*>(out));
    }
}

template <typename Element>
void attend_stored(const Queries& q, const KeysValues& kv, void* out, std::int64_t size) {
    switch (kv.bits) {
        case 8: return attend_sized<Element, std::int8_t>(q, kv, out, size);
        case 16: return attend_sized<Element, Bf16>(q, kv, out, size);
        case 32:
            if constexpr (std::is_same_v<Element, float>) return attend_sized<Element, float>(q, kv, out, size);
    }
}

}  // namespace

void step_attention(const Queries* q, const KeysValues* kv, void* out, std::int64_t size, std::int64_t bits) {
    bits == 16 ? attend_stored<Bf16>(*q, *kv, out, size) : attend_stored<float>(*q, *kv, out, size);
}
