// All layers of a Transformer decoder for one decoding step: self-attention, cross-attention and feed-forward, each with a
// residual connection and a layer norm before it (pre-norm) or after it (post-norm). Activations are float32; weights,
// keys and values may have fewer bits.
//
// One call takes the place of about 25 operations of torch per layer, whose overhead is as long as the computation of a
// few rows. step_kernels.py compiles this file; handlers/engines/seq2seq/decoder_layers.py calls it.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "step_kernels.h"
#include "vectors.h"

namespace {

// Layer normalization (Ba et al. 2016), or root mean square normalization (Zhang and Sennrich 2019) if `bias` is null.
struct Norm {
    const float *weight, *bias;
    double epsilon;
};

struct Layer {
    Norm self_norm, cross_norm, feed_forward_norm;
    Weights self_qkv, self_out, cross_q, cross_out, feed_forward_in, feed_forward_out;
};

struct Decoder {
    const Layer* layers;
    std::int64_t num_layers, num_heads, head_dim, width, pre_norm;
};

// The caches [layers, 2 (keys, values), rows or texts, heads, steps or tokens, head_dim], of which the first `texts` are
// used, and the state of the step. `self_bits` is 16 (bf16) or 32 (float32). `cross_bits` may also be 8 (int8), with scales
// [layers, 2, texts, heads, tokens]. Each text has `beams` rows at `position`. If `offsets` [texts + 1] is not
// null, text i has the rows from offsets[i] to offsets[i + 1] instead, at consecutive positions up to self_lengths[i] - 1,
// and `position` is the last one of all.
struct Step {
    void* self_kv;
    const void* cross_kv;
    const float* cross_scales;
    std::int64_t self_bits, cross_bits, max_rows, max_steps, max_texts, max_tokens, texts, beams, position;
    const std::int64_t* lengths;
    const float* bias;
    std::int64_t bias_stride;
    const std::int64_t *offsets, *self_lengths;
};

// `out` may be `x`.
void normalize(const Norm& norm, const float* x, std::int64_t rows, std::int64_t width, float* out) {
    for (std::int64_t row = 0; row < rows; ++row, x += width, out += width) {
        float mean = 0, variance = 0;
        if (norm.bias) {
#pragma omp simd reduction(+ : mean)
            for (std::int64_t i = 0; i < width; ++i) mean += x[i];
            mean /= width;
        }
#pragma omp simd reduction(+ : variance)
        for (std::int64_t i = 0; i < width; ++i) variance += (x[i] - mean) * (x[i] - mean);
        const float factor = 1 / std::sqrt(variance / width + float(norm.epsilon));
        for (std::int64_t i = 0; i < width; ++i) {
            const float normalized = (x[i] - mean) * factor * norm.weight[i];
            out[i] = norm.bias ? normalized + norm.bias[i] : normalized;
        }
    }
}

// Add the keys and values of the step to the cache of a layer. `qkv` is [rows, 3, heads, head_dim].
template <typename Element>
void store_keys_values(const Decoder& decoder, const Step& step, const float* qkv, std::int64_t rows, char* keys,
                       char* values) {
    const std::int64_t inner = decoder.num_heads * decoder.head_dim;
    std::int64_t text = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
        while (step.offsets && row == step.offsets[text + 1]) ++text;
        const std::int64_t cache_row = step.offsets ? text : row;
        const std::int64_t position =
            step.offsets ? step.self_lengths[text] - (step.offsets[text + 1] - row) : step.position;
        for (std::int64_t head = 0; head < decoder.num_heads; ++head) {
            const float* key = qkv + (3 * row + 1) * inner + head * decoder.head_dim;
            const std::int64_t offset =
                ((cache_row * decoder.num_heads + head) * step.max_steps + position) * decoder.head_dim;
            convert_row(key, decoder.head_dim, reinterpret_cast<Element*>(keys) + offset);
            convert_row(key + inner, decoder.head_dim, reinterpret_cast<Element*>(values) + offset);
        }
    }
}

}  // namespace

std::int64_t step_kernels_version() { return 4; }

// Compute all layers. `x` [rows, width] is replaced by the result. `buffer` has space for the largest intermediate
// results: rows * (width + 4 * heads * head_dim) and rows * outputs of the first layer of feed-forward.
extern "C" void decoder_layers(const Decoder* decoder, const Step* step, float* x, float* buffer) {
    const std::int64_t head_dim = decoder->head_dim, inner = decoder->num_heads * head_dim, width = decoder->width;
    const std::int64_t rows = step->offsets ? step->offsets[step->texts] : step->texts * step->beams;
    const std::int64_t self_bytes = step->max_rows * step->max_steps * inner * step->self_bits / 8;
    const std::int64_t cross_size = step->max_texts * step->max_tokens * inner, scales_size = cross_size / head_dim;
    const std::int64_t cross_bytes = cross_size * step->cross_bits / 8;
    float *normalized = buffer, *projected = normalized + rows * width, *attended = projected + rows * 3 * inner;
    float* hidden = attended + rows * inner;
    const auto before = [&](const Norm& norm) {
        if (!decoder->pre_norm) return x;
        normalize(norm, x, rows, width, normalized);
        return normalized;
    };
    const auto after = [&](const Norm& norm) {
        if (!decoder->pre_norm) normalize(norm, x, rows, width, x);
    };
    for (std::int64_t i = 0; i < decoder->num_layers; ++i) {
        const Layer& layer = decoder->layers[i];
        char *keys = static_cast<char*>(step->self_kv) + 2 * i * self_bytes, *values = keys + self_bytes;
        step_linear(&layer.self_qkv, before(layer.self_norm), rows, nullptr, projected);
        if (step->self_bits == 16)
            store_keys_values<Bf16>(*decoder, *step, projected, rows, keys, values);
        else
            store_keys_values<float>(*decoder, *step, projected, rows, keys, values);
        const Queries self_queries = {
            projected, 3 * inner, step->offsets ? step->texts : rows, 1, decoder->num_heads, step->offsets};
        const std::int64_t self_stride = step->max_steps * head_dim;
        const KeysValues self_kv = {keys,
                                    values,
                                    decoder->num_heads * self_stride,
                                    self_stride,
                                    step->position + 1,
                                    step->self_lengths,
                                    step->bias,
                                    step->bias_stride,
                                    step->position + 1,
                                    1,
                                    nullptr,
                                    nullptr,
                                    step->self_bits};
        step_attention(&self_queries, &self_kv, attended, head_dim, 32);
        step_linear(&layer.self_out, attended, rows, x, x);
        after(layer.self_norm);

        const char* cross_keys = static_cast<const char*>(step->cross_kv) + 2 * i * cross_bytes;
        const float* cross_scales = step->cross_scales ? step->cross_scales + 2 * i * scales_size : nullptr;
        step_linear(&layer.cross_q, before(layer.cross_norm), rows, nullptr, projected);
        const Queries cross_queries = {
            projected, inner, step->texts, step->beams, decoder->num_heads, step->offsets};
        const std::int64_t cross_stride = step->max_tokens * head_dim;
        const KeysValues cross_kv = {cross_keys,
                                     cross_keys + cross_bytes,
                                     decoder->num_heads * cross_stride,
                                     cross_stride,
                                     step->max_tokens,
                                     step->lengths,
                                     nullptr,
                                     0,
                                     0,
                                     0,
                                     cross_scales,
                                     cross_scales ? cross_scales + scales_size : nullptr,
                                     step->cross_bits};
        step_attention(&cross_queries, &cross_kv, attended, head_dim, 32);
        step_linear(&layer.cross_out, attended, rows, x, x);
        after(layer.cross_norm);

        step_linear(&layer.feed_forward_in, before(layer.feed_forward_norm), rows, nullptr, hidden);
        step_linear(&layer.feed_forward_out, hidden, rows, x, x);
        after(layer.feed_forward_norm);
    }
}
