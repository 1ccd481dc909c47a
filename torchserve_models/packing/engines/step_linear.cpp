// Linear layers of a decoding step for few rows, with weights in float32 or int8.
//
// Each panel of outputs is read from memory once, for all rows, while the next panel is prefetched. The products of a row
// are added in the same order for any number of rows. step_kernels.py compiles this file;
// handlers/engines/seq2seq/step_linear.py calls it.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "step_kernels.h"
#include "vectors.h"

namespace {

constexpr int MAX_ROWS = LANES == 16 ? 12 : 6;  // 2 * MAX_ROWS sums, two weights and a factor fit into the registers
constexpr int WIDTH = 2 * LANES;          // outputs of a panel
constexpr int PREFETCH_BYTES = 2048;      // weights ahead of the current ones, if each weight is used only once or twice
constexpr int CACHE_LINE = 64;

// Rows x [rows, inputs], residual [rows, outputs] or null, and the result [rows, outputs].
struct Rows {
    const float *x, *residual;
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

// Multiply ROWS rows by PANELS panels.
template <typename Weight, int ROWS, int PANELS>
void multiply(const Weights& weights, std::int64_t panel, const Rows& rows, const Prefetch& next) {
    const std::int64_t inputs = weights.inputs;
    const Weight* panels = static_cast<const Weight*>(weights.data) + panel * inputs * WIDTH;
    Floats sums[ROWS][2 * PANELS] = {};
    for (std::int64_t k = 0; k < inputs; ++k) {
        Floats weight[2 * PANELS];
        for (int i = 0; i < PANELS; ++i) {
            const Weight* at = panels + (i * inputs + k) * WIDTH;
            if (PANELS > 1) __builtin_prefetch(reinterpret_cast<const char*>(at) + PREFETCH_BYTES);
            weight[2 * i] = load(at);
            weight[2 * i + 1] = load(at + LANES);
        }
        if (PANELS == 1)
            for (int line = 0; line < int(WIDTH * sizeof(Weight)); line += CACHE_LINE)
                __builtin_prefetch(next.start + k * next.step + line, 0, 2);
        for (int row = 0; row < ROWS; ++row)
            for (int i = 0; i < 2 * PANELS; ++i) sums[row][i] += rows.x[row * inputs + k] * weight[i];
    }
    for (int row = 0; row < ROWS; ++row)
        for (int i = 0; i < 2 * PANELS; ++i) {
            const std::int64_t first = panel * WIDTH + i * LANES, offset = row * weights.outputs;
            if (first < weights.outputs)
                store(sums[row][i], weights, first, rows.residual ? rows.residual + offset : nullptr, rows.out + offset);
        }
}

template <typename Weight, int ROWS = MAX_ROWS>
void multiply_panel(std::int64_t count, const Weights& weights, std::int64_t panel, const Rows& rows,
                    const Prefetch& next) {
    if (count == ROWS) return multiply<Weight, ROWS, 1>(weights, panel, rows, next);
    if constexpr (ROWS > 1) multiply_panel<Weight, ROWS - 1>(count, weights, panel, rows, next);
}

template <typename Weight>
void multiply_all(const Weights& weights, const Rows& rows, std::int64_t count) {
    if (count == 0) return;
    const std::int64_t panels = (weights.outputs + WIDTH - 1) / WIDTH, inputs = weights.inputs;
    const std::int64_t blocks = (count + MAX_ROWS - 1) / MAX_ROWS, block_size = (count + blocks - 1) / blocks;
    // One or two rows have too few sums to hide the latency of an addition, so several panels are multiplied at once.
    const std::int64_t group_size = count == 1 ? 4 : count == 2 ? 2 : 1;
    const std::int64_t groups = (panels + group_size - 1) / group_size;
    const std::int64_t step = WIDTH * sizeof(Weight) / blocks;  // each block of rows prefetches its share
#pragma omp parallel for schedule(static)
    for (std::int64_t group = 0; group < groups; ++group) {
        const std::int64_t first = group * group_size, end = std::min(first + group_size, panels);
        if (count == 1 && end - first == 4) {
            multiply<Weight, 1, 4>(weights, first, rows, {});
            continue;
        }
        if (count == 2 && end - first == 2) {
            multiply<Weight, 2, 2>(weights, first, rows, {});
            continue;
        }
        for (std::int64_t panel = first; panel < end; ++panel) {
            const auto* next_panel = static_cast<const char*>(weights.data) + (panel + 1) * inputs * WIDTH * sizeof(Weight);
            for (std::int64_t block = 0; block < blocks; ++block) {
                const std::int64_t row = block * block_size;
                const Rows block_rows = {rows.x + row * inputs,
                                         rows.residual ? rows.residual + row * weights.outputs : nullptr,
                                         rows.out + row * weights.outputs};
                multiply_panel<Weight>(std::min(block_size, count - row), weights, panel, block_rows,
                                       {next_panel + block * step * inputs, step});
            }
        }
    }
}

}  // namespace

std::int64_t step_linear_panel_width() { return WIDTH; }

void step_linear(const Weights* weights, const float* x, std::int64_t rows, const float* residual, float* out) {
    switch (weights->bits) {
        case 32: return multiply_all<float>(*weights, {x, residual, out}, rows);
        case 8: return multiply_all<std::int8_t>(*weights, {x, residual, out}, rows);
    }
}
