// Vectors of float32 that fill one register, loaded from float32, bf16 or int8 and stored as float32 or bf16, and
// functions of them.

#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif

using Floats = float __attribute__((vector_size(4 * LANES)));
using Words = std::int32_t __attribute__((vector_size(4 * LANES)));
using Bf16 = std::uint16_t;
using Halves = Bf16 __attribute__((vector_size(2 * LANES)));

inline Floats load(const float* from) {
    Floats x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

inline Floats load(const Bf16* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    return reinterpret_cast<Floats>(__builtin_convertvector(halves, Words) << 16);
}

inline Floats load(const std::int8_t* from) {
#ifdef __AVX512F__
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#else
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#endif
}

// Load `count` of at most LANES numbers. The others are 0.
template <typename Element>
Floats load_block(const Element* from, std::int64_t count) {
    if (count == LANES) return load(from);  // without a call
    Element block[LANES] = {};
    std::copy_n(from, count, block);
    return load(block);
}

inline void store(Floats x, float* to) { std::memcpy(to, &x, sizeof x); }

inline void store(Floats x, Bf16* to) {
    const Words bits = reinterpret_cast<Words>(x), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const Halves halves = __builtin_convertvector(x == x ? rounded : Words{} + 0x7fc0, Halves);  // NaN remains NaN
    std::memcpy(to, &halves, sizeof halves);
}

// Store the first `count` of at most LANES numbers.
template <typename Element>
void store_block(Floats x, Element* to, std::int64_t count) {
    if (count == LANES) return store(x, to);  // without a call
    Element block[LANES];
    store(x, block);
    std::copy_n(block, count, to);
}

// Convert `count` numbers to the type of `to`.
template <typename Element>
void convert_row(const float* from, std::int64_t count, Element* to) {
    for (std::int64_t first = 0; first < count; first += LANES) {
        const std::int64_t size = std::min<std::int64_t>(LANES, count - first);
        store_block(load_block(from + first, size), to + first, size);
    }
}

// exp(x) as 2^(x log2 e), with the Taylor series of the fraction. The relative error grows from 1e-7 at 0 to 4e-6 at -87,
// where the rounded product counts most; below, the result is nearly 0.
inline Floats exponential(Floats x) {
    constexpr float SHIFT = 0x1.8p23f;  // the lowest bits of x + SHIFT are the integer part of x
    x = (x < -87.0f ? -87.0f : x) * 1.442695041f;
    const Floats integer = x + SHIFT, f = x - (integer - SHIFT);
    const Floats high = 0.00961813f + f * (0.00133336f + f * (0.00015404f + f * 0.00001525f));
    const Floats power = 1.0f + f * (0.69314718f + f * (0.24022651f + f * (0.05550411f + f * high)));
    return reinterpret_cast<Floats>(reinterpret_cast<Words>(power) + (reinterpret_cast<Words>(integer) << 23));
}

// x Phi(x), with erf of Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26, which is exact to 1.5e-7.
inline Floats gelu(Floats x) {
    const Floats z = x * 0.70710678f, magnitude = z < 0.0f ? -z : z, t = 1.0f / (1.0f + 0.3275911f * magnitude);
    const Floats polynomial =
        t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    const Floats complement = polynomial * exponential(-magnitude * magnitude);  // 1 - erf(|z|)
    return 0.5f * x * (z < 0.0f ? complement : 2.0f - complement);
}

inline float max_of(Floats x) {
    float maximum = x[0];
    for (int i = 1; i < LANES; ++i) maximum = x[i] > maximum ? x[i] : maximum;
    return maximum;
}

inline float sum_of(Floats x) {
    float sum = 0;
    for (int i = 0; i < LANES; ++i) sum += x[i];
    return sum;
}

}  // namespace
