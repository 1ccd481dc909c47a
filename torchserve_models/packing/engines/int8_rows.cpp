// What surrounds an int8 matrix product whose rows x have scales of their own: quantization of x, and scaling, bias,
// activation and residual of the result. Each reads and writes memory once.
//
// step_kernels.py compiles this file; step_linear.cpp and handlers/engines/seq2seq/linear.py call it.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "step_kernels.h"
#include "vectors.h"

namespace {

constexpr float SHIFT = 0x1.8p23f;  // the lowest bits of x + SHIFT are x, rounded to the nearest integer
constexpr int ZERO_POINT = 128;

using Bytes = std::uint8_t __attribute__((vector_size(LANES)));

// Call `function(first, count)` for each block of at most LANES numbers.
template <typename Function>
void for_blocks(std::int64_t size, Function function) {
    std::int64_t first = 0;
    for (; first + LANES <= size; first += LANES) function(first, std::int64_t{LANES});
    if (first < size) function(first, size - first);
}

template <typename Element>
void quantize(const Element* x, std::int64_t size, std::uint8_t* out, float* scale) {
    Floats maxima = {}, not_finite = {};
    for_blocks(size, [&](std::int64_t first, std::int64_t count) {
        const Floats block = load_block(x + first, count), magnitude = block < 0.0f ? -block : block;
        maxima = magnitude > maxima ? magnitude : maxima;
        not_finite += block * 0.0f;
    });
    const float maximum = std::max(max_of(maxima), 1e-30f);
    *scale = maximum / 127 + sum_of(not_finite);  // NaN if a number is not finite
    const float factor = 127 / maximum;
    for_blocks(size, [&](std::int64_t first, std::int64_t count) {
        const Floats shifted = load_block(x + first, count) * factor + SHIFT;
        const Words rounded = reinterpret_cast<Words>(shifted) - reinterpret_cast<Words>(Floats{} + SHIFT);
        const Bytes bytes = __builtin_convertvector(rounded + ZERO_POINT, Bytes);
        std::memcpy(out + first, &bytes, count);
    });
}

template <typename Element>
void finish(Element* product, std::int64_t size, float scale, const float* bias, const Element* residual,
            std::int64_t activation) {
    for_blocks(size, [&](std::int64_t first, std::int64_t count) {
        Floats x = load_block(product + first, count) * scale;
        if (bias) x += load_block(bias + first, count);
        if (residual) x += load_block(residual + first, count);
        if (activation == RELU) x = x < 0.0f ? Floats{} : x;
        if (activation == GELU) x = gelu(x);
        store_block(x, product + first, count);
    });
}

template <typename Element>
void quantize_all(const void* x, std::int64_t rows, std::int64_t size, std::uint8_t* out, float* scales) {
#pragma omp parallel for schedule(static) if (rows > 1)
    for (std::int64_t row = 0; row < rows; ++row)
        quantize(static_cast<const Element*>(x) + row * size, size, out + row * size, scales + row);
}

template <typename Element>
void finish_all(void* product, std::int64_t rows, std::int64_t size, const float* scales, const float* bias,
                const void* residual, std::int64_t activation) {
#pragma omp parallel for schedule(static) if (rows > 1)
    for (std::int64_t row = 0; row < rows; ++row)
        finish(static_cast<Element*>(product) + row * size, size, scales[row], bias,
               residual ? static_cast<const Element*>(residual) + row * size : nullptr, activation);
}

}  // namespace

// Quantize rows x [rows, size] in bf16 (16 bits) or float32 (32 bits) to unsigned `out` with the zero point 128. The
// largest magnitude of a row becomes 127, and `scales` [rows] is the step.
extern "C" void quantize_rows(const void* x, std::int64_t rows, std::int64_t size, std::int64_t bits, std::uint8_t* out,
                              float* scales) {
    bits == 16 ? quantize_all<Bf16>(x, rows, size, out, scales) : quantize_all<float>(x, rows, size, out, scales);
}

// Replace the product [rows, size] by activation(product * scale of the row + bias + residual). `bias` and `residual`
// may be null. Product and residual are bf16 (16 bits) or float32 (32 bits).
extern "C" void finish_rows(void* product, std::int64_t rows, std::int64_t size, std::int64_t bits, const float* scales,
                            const float* bias, const void* residual, std::int64_t activation) {
    bits == 16 ? finish_all<Bf16>(product, rows, size, scales, bias, residual, activation)
               : finish_all<float>(product, rows, size, scales, bias, residual, activation);
}
