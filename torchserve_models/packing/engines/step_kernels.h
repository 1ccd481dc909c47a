// The functions of the compiled decoding step, and their arguments. Strides count elements.
// step_linear.py, decode_attention.py and decoder_layers.py in handlers/engines/seq2seq declare the same structures, and
// step_kernels.py the functions. decoder_layers.cpp and int8_rows.cpp describe decoder_layers, quantize_rows and
// finish_rows, with the structures of decoder_layers.

#pragma once

#include <cstdint>

enum Activation : std::int64_t { NONE, RELU, GELU };

// A linear layer. `data` is [panels, inputs / group size, panel width, group size], in which the last panel and the last
// group are padded. `scales` [outputs] is null except for int8, and `bias` [outputs] may be null. `bits` is 32 for float32,
// 16 for bf16, and 8 for int8.
struct Weights {
    const void* data;
    const float *scales, *bias;
    std::int64_t inputs, outputs, bits, activation;
};

// Queries [rows, heads, size], with the last two dimensions contiguous. Text i has the rows from offsets[i] to
// offsets[i + 1], or `beams` rows if `offsets` [texts + 1] is null.
struct Queries {
    const void* data;
    std::int64_t row_stride, texts, beams, heads;
    const std::int64_t* offsets;
};

// Keys and values [texts, heads, length, size], with the last two dimensions contiguous. `lengths` has the number of
// keys of each text that are attended to, or is null for all. `bias` [heads, bias_length] may be null. If `is_causal` is
// not 0, each row of a text attends to one key more than the row before it, and the bias of its last key is the last one.
// `bits` is 32 for keys and values in float32, 16 for bf16, and 8 for int8. The scales are the steps of int8, with the
// strides of keys and values divided by `size`.
struct KeysValues {
    const void *keys, *values;
    std::int64_t text_stride, head_stride, length;
    const std::int64_t* lengths;
    const void* bias;
    std::int64_t bias_stride, bias_length, is_causal;
    const float *key_scales, *value_scales;
    std::int64_t bits;
};

extern "C" {

// The version of the functions and structures: VERSION in handlers/engines/seq2seq/step_kernels.py. Increase both with
// every change of an argument, a structure or a layout of weights, because archives contain the library of their time.
std::int64_t step_kernels_version();

// The number of outputs in a panel of `Weights`.
std::int64_t step_linear_panel_width();

// The number of consecutive inputs that a panel contains for each output before the next output: 4 for int8 if the code was
// compiled for VNNI, and 2 for bf16 if it was compiled for AVX512_BF16. x is then converted to the type of the weights, and
// int8 weights are unsigned with the zero point 128. Otherwise it is 1, int8 weights are signed, and x remains in float32.
std::int64_t step_linear_group_size(std::int64_t bits);

// Quantize rows to unsigned int8 (int8_rows.cpp).
void quantize_rows(const void* x, std::int64_t rows, std::int64_t size, std::int64_t bits, std::uint8_t* out,
                   float* scales);

// Compute x W^T + bias + residual, or activation(x W^T + bias) if `residual` is null. `out` may be `residual`.
void step_linear(const Weights* weights, const float* x, std::int64_t rows, const float* residual, float* out);

// Compute softmax(q k^T + bias) v. Queries, bias and `out` have 16 bits (bf16) or 32 bits (float32), keys and values not
// more. `size` is one of the HEAD_SIZES of handlers/engines/seq2seq/decode_attention.py.
void step_attention(const Queries* queries, const KeysValues* keys_values, void* out, std::int64_t size,
                    std::int64_t bits);
}
