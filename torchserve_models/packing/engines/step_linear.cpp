// Linear layers of a decoding step for few rows, with weights in float32, bf16 or int8.
//
// Each panel of outputs is read from memory once, for all rows, while the next panel is prefetched. The products of a row
// are added in the same order for any number of rows. step_kernels.py compiles this file;
// handlers/engines/seq2seq/step_linear.py calls it.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "step_kernels.h"
#include "vectors.h"

namespace {

constexpr int MAX_ROWS = LANES == 16 ? 12 : 6;  // 2 * MAX_ROWS sums, two weights and a factor fit into the registers
constexpr int WIDTH = 2 * LANES;          // outputs of a panel
constexpr int PREFETCH_BYTES = 2048;      // weights ahead of the current ones, if each weight is used only once or twice
constexpr int CACHE_LINE = 64;
constexpr std::int32_t ZERO_POINT = 128;

// Four weights of consecutive inputs, in unsigned int8 with the zero point 128.
struct Quad {
    std::uint8_t bytes[4];
};

// Four numbers of a row, in signed int8. They are read as one word.
struct alignas(4) QuadInput {
    std::int8_t bytes[4];
};

// Two weights of consecutive inputs, or two numbers of a row, in bf16.
struct alignas(4) Pair {
    Bf16 numbers[2];
};

#ifdef __AVX512BF16__
constexpr bool HAS_BF16_PRODUCTS = true;
#else
constexpr bool HAS_BF16_PRODUCTS = false;
#endif

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
constexpr bool HAS_INT8_PRODUCTS = true;
#else
constexpr bool HAS_INT8_PRODUCTS = false;
#endif

// The types of a product: what a row and a register of sums contain, by the type of the weights.
template <typename Weight>
struct Product {
    using Input = float;
    using Sums = Floats;
};
template <>
struct Product<Quad> {
    using Input = QuadInput;
    using Sums = Words;
};
template <>
struct Product<Pair> {
    using Input = Pair;
    using Sums = Floats;
};

// Rows x, residual [rows, outputs] or null, and the result [rows, outputs]. `x` is [rows, inputs] in float32, [rows, pairs]
// in bf16, or [rows, quads] in int8 with a scale and the sum of each row.
template <typename Input>
struct Rows {
    const Input* x;
    const float *residual, *scales;
    const std::int32_t* totals;
    float* out;
};

// Where the weights that are needed next start, and how far to advance for each input.
struct Prefetch {
    const char* start;
    std::int64_t step;
};

// Copy `count` of at most LANES numbers.
void copy(const void* from, std::int64_t count, void* to) {
    if (count == LANES)  // without a call
        std::memcpy(to, from, sizeof(Floats));
    else
        std::memcpy(to, from, count * sizeof(float));
}

// Write the sums of LANES outputs of a row from output `first` on.
void store(Floats sums, const Weights& weights, std::int64_t first, const float* residual, float* out) {
    const std::int64_t count = std::min<std::int64_t>(LANES, weights.outputs - first);
    Floats term = {};
    if (weights.scales) copy(weights.scales + first, count, &term), sums *= term;
    if (weights.bias) copy(weights.bias + first, count, &term), sums += term;
    if (residual)
        copy(residual + first, count, &term), sums += term;
    else if (weights.activation == RELU)
        sums = sums < 0.0f ? Floats{} : sums;
    else if (weights.activation == GELU)
        sums = gelu(sums);
    copy(&sums, count, out + first);
}

inline Words load(const Quad* from) {
    Words words;
    std::memcpy(&words, from, sizeof words);
    return words;
}

inline Words load(const Pair* from) {
    Words words;
    std::memcpy(&words, from, sizeof words);
    return words;
}

inline void add_product(Floats& sums, float x, Floats weights) { sums += x * weights; }

// Add four products of unsigned weights and signed x to each sum.
inline void add_product(Words& sums, QuadInput x, Words weights) {
    std::int32_t word;
    std::memcpy(&word, &x, sizeof word);
#ifdef __AVX512VNNI__
    sums = reinterpret_cast<Words>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sums), reinterpret_cast<__m512i>(weights),
                                                       _mm512_set1_epi32(word)));
#elif defined(__AVXVNNI__)
    sums = reinterpret_cast<Words>(_mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(sums),
                                                           reinterpret_cast<__m256i>(weights), _mm256_set1_epi32(word)));
#endif
}

// Add two products of weights and x to each sum.
inline void add_product(Floats& sums, Pair x, Words weights) {
#ifdef __AVX512BF16__
    std::int32_t word;
    std::memcpy(&word, &x, sizeof word);
    sums = reinterpret_cast<Floats>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sums), reinterpret_cast<__m512bh>(weights),
                                                     reinterpret_cast<__m512bh>(_mm512_set1_epi32(word))));
#endif
}

template <typename Input>
inline Floats to_floats(Floats sums, const Rows<Input>&, int) {
    return sums;
}

inline Floats to_floats(Words sums, const Rows<QuadInput>& rows, int row) {
    return __builtin_convertvector(sums - ZERO_POINT * rows.totals[row], Floats) * rows.scales[row];
}

// Multiply ROWS rows by PANELS panels. Each panel has `steps` groups of WIDTH weights, one for each element of a row.
template <typename Weight, int ROWS, int PANELS>
void multiply(const Weights& weights, std::int64_t steps, std::int64_t panel,
              const Rows<typename Product<Weight>::Input>& rows, const Prefetch& next) {
    const Weight* panels = static_cast<const Weight*>(weights.data) + panel * steps * WIDTH;
    using Sums = typename Product<Weight>::Sums;
    Sums sums[ROWS][2 * PANELS] = {};
    for (std::int64_t k = 0; k < steps; ++k) {
        decltype(load(panels)) weight[2 * PANELS];
        for (int i = 0; i < PANELS; ++i) {
            const Weight* at = panels + (i * steps + k) * WIDTH;
            if (PANELS > 1) __builtin_prefetch(reinterpret_cast<const char*>(at) + PREFETCH_BYTES);
            weight[2 * i] = load(at);
            weight[2 * i + 1] = load(at + LANES);
        }
        if (PANELS == 1)
            for (int line = 0; line < int(WIDTH * sizeof(Weight)); line += CACHE_LINE)
                __builtin_prefetch(next.start + k * next.step + line, 0, 2);
        for (int row = 0; row < ROWS; ++row)
            for (int i = 0; i < 2 * PANELS; ++i) add_product(sums[row][i], rows.x[row * steps + k], weight[i]);
    }
    for (int row = 0; row < ROWS; ++row)
        for (int i = 0; i < 2 * PANELS; ++i) {
            const std::int64_t first = panel * WIDTH + i * LANES, offset = row * weights.outputs;
            if (first < weights.outputs)
                store(to_floats(sums[row][i], rows, row), weights, first,
                      rows.residual ? rows.residual + offset : nullptr, rows.out + offset);
        }
}

template <typename Weight, int ROWS = MAX_ROWS>
void multiply_panel(std::int64_t count, const Weights& weights, std::int64_t steps, std::int64_t panel,
                    const Rows<typename Product<Weight>::Input>& rows, const Prefetch& next) {
    if (count == ROWS) return multiply<Weight, ROWS, 1>(weights, steps, panel, rows, next);
    if constexpr (ROWS > 1) multiply_panel<Weight, ROWS - 1>(count, weights, steps, panel, rows, next);
}

template <typename Weight>
void multiply_all(const Weights& weights, std::int64_t steps, const Rows<typename Product<Weight>::Input>& rows,
                  std::int64_t count) {
    if (count == 0) return;
    const std::int64_t panels = (weights.outputs + WIDTH - 1) / WIDTH;
    const std::int64_t blocks = (count + MAX_ROWS - 1) / MAX_ROWS, block_size = (count + blocks - 1) / blocks;
    // One or two rows have too few sums to hide the latency of an addition, so several panels are multiplied at once.
    const std::int64_t group_size = count == 1 ? 4 : count == 2 ? 2 : 1;
    const std::int64_t groups = (panels + group_size - 1) / group_size;
    const std::int64_t bytes = WIDTH * sizeof(Weight) / blocks;  // each block of rows prefetches its share
#pragma omp parallel for schedule(static)
    for (std::int64_t group = 0; group < groups; ++group) {
        const std::int64_t first = group * group_size, end = std::min(first + group_size, panels);
        if (count == 1 && end - first == 4) {
            multiply<Weight, 1, 4>(weights, steps, first, rows, {});
            continue;
        }
        if (count == 2 && end - first == 2) {
            multiply<Weight, 2, 2>(weights, steps, first, rows, {});
            continue;
        }
        for (std::int64_t panel = first; panel < end; ++panel) {
            const auto* next_panel = static_cast<const char*>(weights.data) + (panel + 1) * steps * WIDTH * sizeof(Weight);
            for (std::int64_t block = 0; block < blocks; ++block) {
                const std::int64_t row = block * block_size;
                auto block_rows = rows;
                block_rows.x += row * steps;
                block_rows.out += row * weights.outputs;
                if (rows.residual) block_rows.residual += row * weights.outputs;
                if (rows.scales) block_rows.scales += row, block_rows.totals += row;
                multiply_panel<Weight>(std::min(block_size, count - row), weights, steps, panel, block_rows,
                                       {next_panel + block * bytes * steps, bytes});
            }
        }
    }
}

// Quantize the rows, and multiply them in int8.
void multiply_int8(const Weights& weights, const float* x, std::int64_t count, const float* residual, float* out) {
    const std::int64_t steps = (weights.inputs + 3) / 4, row_bytes = 4 * steps;
    auto* quantized = static_cast<std::uint8_t*>(std::malloc(count * (row_bytes + sizeof(float) + sizeof(std::int32_t))));
    auto* scales = reinterpret_cast<float*>(quantized + count * row_bytes);
    auto* totals = reinterpret_cast<std::int32_t*>(scales + count);
#pragma omp parallel for schedule(static) if (count > 1)
    for (std::int64_t row = 0; row < count; ++row) {
        std::uint8_t* bytes = quantized + row * row_bytes;
        quantize_rows(x + row * weights.inputs, 1, weights.inputs, 32, bytes, scales + row);
        std::fill(bytes + weights.inputs, bytes + row_bytes, ZERO_POINT);
        std::int32_t total = 0;
        for (std::int64_t i = 0; i < row_bytes; ++i) {
            bytes[i] ^= ZERO_POINT;  // now signed, with the zero point 0
            total += static_cast<std::int8_t>(bytes[i]);
        }
        totals[row] = total;
    }
    multiply_all<Quad>(weights, steps, {reinterpret_cast<const QuadInput*>(quantized), residual, scales, totals, out}, count);
    std::free(quantized);
}

// Round the rows to bf16, and multiply them in bf16.
void multiply_bf16(const Weights& weights, const float* x, std::int64_t count, const float* residual, float* out) {
    const std::int64_t steps = (weights.inputs + 1) / 2;
    auto* pairs = static_cast<Pair*>(std::malloc(count * steps * sizeof(Pair)));
#pragma omp parallel for schedule(static) if (count > 1)
    for (std::int64_t row = 0; row < count; ++row) {
        auto* numbers = reinterpret_cast<Bf16*>(pairs + row * steps);
        if (weights.inputs % 2) numbers[weights.inputs] = 0;
        convert_row(x + row * weights.inputs, weights.inputs, numbers);
    }
    multiply_all<Pair>(weights, steps, {pairs, residual, nullptr, nullptr, out}, count);
    std::free(pairs);
}

}  // namespace

std::int64_t step_linear_panel_width() { return WIDTH; }

std::int64_t step_linear_group_size(std::int64_t bits) {
    return bits == 8 && HAS_INT8_PRODUCTS ? 4 : bits == 16 && HAS_BF16_PRODUCTS ? 2 : 1;
}

void step_linear(const Weights* weights, const float* x, std::int64_t rows, const float* residual, float* out) {
    if (weights->bits == 8 && HAS_INT8_PRODUCTS) return multiply_int8(*weights, x, rows, residual, out);
    if (weights->bits == 16 && HAS_BF16_PRODUCTS) return multiply_bf16(*weights, x, rows, residual, out);
    const Rows<float> unchanged = {x, residual, nullptr, nullptr, out};
    switch (weights->bits) {
        case 8: return multiply_all<std::int8_t>(*weights, weights->inputs, unchanged, rows);
        case 16: return multiply_all<Bf16>(*weights, weights->inputs, unchanged, rows);
        case 32: return multiply_all<float>(*weights, weights->inputs, unchanged, rows);
    }
}
