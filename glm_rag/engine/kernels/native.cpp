// ChatGLM2 blocks on the CPU: int4 and int8 weights times int8 activations, and attention.
//
// Weights [N, K] lie in blocks of 16 output channels. int4: 64 bytes hold 8 columns of the block;
// byte 4*lane + j has column j in its low nibble and column 4 + j in its high one. int8: 64 bytes
// hold 4 columns, byte 4*lane + j column j. Stored values are unsigned: q + 8 or q + 128. One
// half-precision scale per channel and group of columns, [N/16, K/group, 16].
//
// Activations are quantized row by row, one scale per ACT columns (32, 64 or 128):
//   a = round(x * 127 / max|x|).  y[n] = sum over groups of scale_w * scale_a * sum (q + z) a - z a.
// Integer sums are exact, so the result does not depend on the instruction set but for the order
// of the float additions within a fused multiply-add, and not on the number of rows at all.
#include "simd.h"
#include "threads.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include <pthread.h>

namespace {

constexpr int UNIT = 32;           // columns unrolled at once; groups are multiples of it
constexpr int MAX_DEPTH = 4096;    // columns unpacked at once: 48 channels stay in the L2 cache
constexpr int FEW_ROWS = 64;        // up to here unpacking costs less than writing it down
constexpr int KEYS = 64;           // keys of one attention step
constexpr int MAX_QUERY_ROWS = 192;

// These and the buffers below are never destroyed: threads may use them until the process is gone.
Pool& pool = *new Pool;
std::mutex& engine_lock = *new std::mutex;  // one call at a time: pool and scratch are shared

// A forked child has none of the pool's threads, and its locks as some thread held them: no call
// is under way while a process forks, and the child begins with a new pool of the same size.
const int fork_handlers = pthread_atfork(
    [] { engine_lock.lock(); }, [] { engine_lock.unlock(); },
    [] {
      int threads = pool.size();
      new (&pool) Pool;
      pool.resize(threads);
      engine_lock.unlock();
    });

template <class T>
T* scratch(std::vector<T>& buffer, size_t size) {
  // Aligned to a cache line; grows only.
  if (buffer.size() < size + 64) buffer.resize(size + 64);
  auto address = reinterpret_cast<uintptr_t>(buffer.data());
  return reinterpret_cast<T*>((address + 63) & ~uintptr_t{63});
}

// Calls f(first, last) on a few even shares of [0, count).
template <class Body>
void parallel(int count, int grain, const Body& f) {
  int tasks = std::min((count + grain - 1) / grain, 4 * pool.size());
  if (tasks <= 1) return f(0, count);
  pool.run(tasks, [&](int i) {
    f(static_cast<int>(int64_t{count} * i / tasks), static_cast<int>(int64_t{count} * (i + 1) / tasks));
  });
}

}  // namespace

extern "C" {

struct Matrix {
  const uint8_t* packed;
  const uint16_t* scales;
  const float* bias;  // or null
  int32_t rows, columns, group, bits;
};

struct Block {
  Matrix query_key_value, dense, h_to_4h, to_h;
  const float *input_norm, *post_norm;
  float epsilon;
  int32_t heads, groups, head_dim, rotary_dim;
};

// Keys and values of one layer and sequence: [groups, capacity, head_dim]; scales [groups, capacity].
// The last `tokens` of its `length` columns are those of this pass.
struct Cache {
  void *keys, *values;
  float *key_scales, *value_scales;
  int32_t kind;  // 0 float32, 1 bfloat16, 2 int8
  int32_t capacity, length, tokens;
};
}

namespace {

// ------------------------------------------------------------ activations

struct Activations {
  int rows, columns, act, group;
  const int8_t* q;         // [rows, columns]
  const float* scales;     // [rows, columns / act]
  const int32_t* offsets;  // [rows, columns / group], -z * sum of q: what unsigned weights add
};

struct ActivationBuffer {
  std::vector<int8_t> q;
  std::vector<float> scales;
  std::vector<int32_t> offsets;
};
ActivationBuffer& activation_buffer = *new ActivationBuffer;

// Columns that share an activation scale: the more, the less of the time goes into scaling sums.
int act_columns(int columns, int group) {
  for (int act : {128, 64})
    if (columns % act == 0 && act % group == 0) return act;
  return group;
}

void quantize_row(const float* x, const Matrix& w, int act, int8_t* q, float* scales,
                  int32_t* offsets) {
  const int zero = 1 << (w.bits - 1);
  for (int first = 0; first < w.columns; first += act) {
    F top = set1(0.0f);
    for (int i = 0; i < act; i += LANES) top = max(top, abs(load(x + first + i)));
    float peak = largest(top);
    *scales++ = peak / 127;
    F inverse = set1(peak > 0 ? 127 / peak : 0.0f);
    for (int group = first; group < first + act; group += w.group) {
      I sums = set1(0);
      for (int i = group; i < group + w.group; i += LANES) {
        I rounded = round_to_int(load(x + i) * inverse);
        store_int8(q + i, rounded);
        sums = sums + rounded;
      }
      *offsets++ = -zero * sum(sums);
    }
  }
}

// Quantize rows for a product with w; `row(m, buffer)` returns where the floats of row m are.
template <class Row>
Activations quantize(int rows, const Matrix& w, const Row& row) {
  const int columns = w.columns, act = act_columns(columns, w.group);
  const int acts = columns / act, groups = columns / w.group;
  int8_t* q = scratch(activation_buffer.q, size_t(rows) * columns);
  float* scales = scratch(activation_buffer.scales, size_t(rows) * acts);
  int32_t* offsets = scratch(activation_buffer.offsets, size_t(rows) * groups);
  parallel(rows, 4, [&](int first, int last) {
    static thread_local std::vector<float> buffer;
    float* own = scratch(buffer, columns);
    for (int m = first; m < last; m++)
      quantize_row(row(m, own), w, act, q + size_t(m) * columns, scales + size_t(m) * acts,
                   offsets + size_t(m) * groups);
  });
  return {rows, columns, act, w.group, q, scales, offsets};
}

// Root mean square norm in float32 (arXiv 1910.07467).
const float* rms_norm(const float* x, const float* weight, float epsilon, int columns, float* out) {
  F squares = set1(0.0f);
  for (int i = 0; i < columns; i += LANES) squares = fma(load(x + i), load(x + i), squares);
  F factor = set1(1 / std::sqrt(sum(squares) / columns + epsilon));
  for (int i = 0; i < columns; i += LANES) store(out + i, load(x + i) * factor * load(weight + i));
  return out;
}

// SwiGLU (arXiv 2002.05202): the first half of the row is the gate.
const float* gated(const float* x, int columns, float* out) {
  for (int i = 0; i < columns; i += LANES) {
    F gate = load(x + i);
    F sigmoid = set1(1.0f) / (set1(1.0f) + exp(set1(0.0f) - gate));
    store(out + i, gate * sigmoid * load(x + columns + i));
  }
  return out;
}

// ------------------------------------------------------------ matrix products

// Where a tile finds its weights: as stored, or unpacked to one byte per value.
struct Weights {
  const uint8_t* bytes;
  size_t block_bytes;
  const uint16_t* scales;  // of the first group
  size_t block_scales;
};

// Adds the products of one unit of columns; q points to the unit in the first row.
template <int MR, int NB, int BITS, bool NIBBLES>
INLINE void add_unit(const uint8_t* bytes, size_t block_bytes, const int8_t* q, size_t columns,
                     I (&sums)[MR][NB]) {
  if (NIBBLES) {
    // A single sum would make each product wait for the one before; several hide that themselves.
    constexpr bool SPLIT = MR * NB == 1;
    I apart[MR][NB];
    if (SPLIT) apart[0][0] = set1(0);
    constexpr int AHEAD = MR == 1 ? 4096 : 2048;
#pragma GCC unroll 4
    for (int word = 0; word < UNIT / 8; word++) {
      Bytes low[NB], high[NB];
      for (int b = 0; b < NB; b++) {
        const uint8_t* p = bytes + b * block_bytes + word * 64;
        _mm_prefetch(reinterpret_cast<const char*>(p) + AHEAD, _MM_HINT_T0);
        Bytes v = load_bytes(p);
        low[b] = low_nibbles(v);
        high[b] = high_nibbles(v);
      }
      for (int r = 0; r < MR; r++) {
        int32_t first_four = load_i32(q + r * columns + word * 8);
        int32_t next_four = load_i32(q + r * columns + word * 8 + 4);
        for (int b = 0; b < NB; b++) {
          sums[r][b] = dot<BITS>(sums[r][b], low[b], first_four);
          I& other = SPLIT ? apart[r][b] : sums[r][b];
          other = dot<BITS>(other, high[b], next_four);
        }
      }
    }
    if (SPLIT) sums[0][0] = sums[0][0] + apart[0][0];
  } else {
#pragma GCC unroll 8
    for (int quad = 0; quad < UNIT / 4; quad++) {
      Bytes v[NB];
      for (int b = 0; b < NB; b++) v[b] = load_bytes(bytes + b * block_bytes + quad * 64);
      for (int r = 0; r < MR; r++) {
        int32_t four = load_i32(q + r * columns + quad * 4);
        for (int b = 0; b < NB; b++) sums[r][b] = dot<BITS>(sums[r][b], v[b], four);
      }
    }
  }
}

// A tile of MR rows and NB blocks of 16 channels over `columns` columns from `first` on.
template <int MR, int NB, int BITS, bool NIBBLES, int GROUP>
INLINE void tile(const Weights& w, const Activations& a, int m, int first, int columns, bool add,
                 float* out, size_t out_stride) {
  constexpr int UNIT_BYTES = UNIT * LANES / (NIBBLES ? 2 : 1);
  const size_t acts = a.columns / a.act, groups = a.columns / GROUP;
  const int8_t* q = a.q + size_t(m) * a.columns + first;
  const int32_t* offsets = a.offsets + m * groups + first / GROUP;
  const float* act_scales = a.scales + m * acts + first / a.act;
  const uint8_t* bytes = w.bytes;
  const uint16_t* scales = w.scales;
  const int groups_per_act = a.act / GROUP;
  F total[MR][NB];
  for (int r = 0; r < MR; r++)
    for (int b = 0; b < NB; b++)
      total[r][b] = add ? load(out + r * out_stride + b * LANES) : set1(0.0f);
  for (int k = 0; k < columns; k += a.act) {
    F part[MR][NB];
    for (int r = 0; r < MR; r++)
      for (int b = 0; b < NB; b++) part[r][b] = set1(0.0f);
    for (int g = 0; g < groups_per_act; g++) {
      I sums[MR][NB];
      for (int r = 0; r < MR; r++)
        for (int b = 0; b < NB; b++) sums[r][b] = set1(offsets[r * groups]);
      for (int u = 0; u < GROUP / UNIT; u++, bytes += UNIT_BYTES, q += UNIT)
        add_unit<MR, NB, BITS, NIBBLES>(bytes, w.block_bytes, q, a.columns, sums);
      for (int b = 0; b < NB; b++) {
        F scale = load_half(scales + b * w.block_scales);
        for (int r = 0; r < MR; r++) part[r][b] = fma(to_float(sums[r][b]), scale, part[r][b]);
      }
      scales += LANES;
      offsets++;
    }
    for (int r = 0; r < MR; r++) {
      F scale = set1(act_scales[r * acts]);
      for (int b = 0; b < NB; b++) total[r][b] = fma(part[r][b], scale, total[r][b]);
    }
    act_scales++;
  }
  for (int r = 0; r < MR; r++)
    for (int b = 0; b < NB; b++) store(out + r * out_stride + b * LANES, total[r][b]);
}

template <int NB, int BITS, bool NIBBLES, int GROUP>
void rows_of_group(const Weights& w, const Activations& a, int first, int columns, bool add,
                   float* out, size_t stride) {
  int m = 0;
  for (; m + TILE_ROWS <= a.rows; m += TILE_ROWS)
    tile<TILE_ROWS, NB, BITS, NIBBLES, GROUP>(w, a, m, first, columns, add, out + m * stride,
                                              stride);
  for (; m + 2 <= a.rows; m += 2)
    tile<2, NB, BITS, NIBBLES, GROUP>(w, a, m, first, columns, add, out + m * stride, stride);
  for (; m < a.rows; m++)
    tile<1, NB, BITS, NIBBLES, GROUP>(w, a, m, first, columns, add, out + m * stride, stride);
}

template <int NB, int BITS, bool NIBBLES>
void all_rows(const Weights& w, const Activations& a, int first, int columns, bool add, float* out,
              size_t stride) {
  if (a.group == 32)
    rows_of_group<NB, BITS, NIBBLES, 32>(w, a, first, columns, add, out, stride);
  else
    rows_of_group<NB, BITS, NIBBLES, 128>(w, a, first, columns, add, out, stride);
}

// Channels of `NB` blocks from `block` on, the weights read as they are stored.
template <int NB, int BITS>
void stored_blocks(const Matrix& w, const Activations& a, int block, bool add, float* out) {
  size_t block_bytes = size_t(w.columns) * LANES * BITS / 8;
  size_t block_scales = size_t(w.columns) / w.group * LANES;
  Weights view{w.packed + block * block_bytes, block_bytes, w.scales + block * block_scales,
               block_scales};
  all_rows<NB, BITS, BITS == 4>(view, a, 0, w.columns, add, out + block * LANES, w.rows);
}

// The same for int4 with many rows: unpack once, then use it for all of them.
template <int NB>
void unpacked_blocks(const Matrix& w, const Activations& a, int block, bool add, float* out) {
  static thread_local std::vector<uint8_t> buffer;
  size_t block_bytes = size_t(w.columns) * LANES / 2;
  size_t block_scales = size_t(w.columns) / w.group * LANES;
  int depth = std::min(w.columns, MAX_DEPTH);
  uint8_t* unpacked = scratch(buffer, size_t(NB) * depth * LANES);
  for (int first = 0; first < w.columns; first += depth) {
    int columns = std::min(depth, w.columns - first);
    for (int b = 0; b < NB; b++) {
      const uint8_t* p = w.packed + (block + b) * block_bytes + size_t(first) * LANES / 2;
      uint8_t* u = unpacked + size_t(b) * depth * LANES;
      for (int word = 0; word < columns / 8; word++) {
        Bytes v = load_bytes(p + word * 64);
        store_bytes(u + word * 128, low_nibbles(v));
        store_bytes(u + word * 128 + 64, high_nibbles(v));
      }
    }
    const uint16_t* scales = w.scales + block * block_scales + size_t(first) / w.group * LANES;
    Weights view{unpacked, size_t(depth) * LANES, scales, block_scales};
    all_rows<NB, 4, false>(view, a, first, columns, add || first, out + block * LANES, w.rows);
  }
}

template <int NB>
void blocks(const Matrix& w, const Activations& a, int block, bool add, float* out) {
  if (w.bits == 8)
    stored_blocks<NB, 8>(w, a, block, add, out);
  else if (a.rows <= FEW_ROWS)
    stored_blocks<NB, 4>(w, a, block, add, out);
  else
    unpacked_blocks<NB>(w, a, block, add, out);
}

// out [rows, w.rows] = a w^T + bias, or += where `add`.
void multiply(const Matrix& w, const Activations& a, bool add, float* out) {
  // One row of int4 is read fastest in one stream; int8, without unpacking, in several (measured).
  const int wide = a.rows == 1 && w.bits == 4 ? 1 : TILE_BLOCKS;
  const int num_blocks = w.rows / LANES, tasks = (num_blocks + wide - 1) / wide;
  // Few rows: long runs of memory per task; many rows: one unpacked piece.
  const int most = a.rows <= FEW_ROWS ? 24 / wide : 1;
  const int run = std::max(1, std::min(most, tasks / (4 * pool.size())));
  pool.run((tasks + run - 1) / run, [&](int i) {
    for (int t = i * run; t < std::min(tasks, (i + 1) * run); t++) {
      int block = t * wide;
      if (wide == TILE_BLOCKS && block + wide <= num_blocks)
        blocks<TILE_BLOCKS>(w, a, block, add, out);
      else
        for (; block < std::min(num_blocks, (t + 1) * wide); block++)
          blocks<1>(w, a, block, add, out);
    }
  });
  if (w.bias)
    parallel(a.rows, 64, [&](int first, int last) {
      for (int m = first; m < last; m++)
        for (int n = 0; n < w.rows; n += LANES) {
          float* p = out + size_t(m) * w.rows + n;
          store(p, load(p) + load(w.bias + n));
        }
    });
}

// ------------------------------------------------------------ attention

// Rotate adjacent pairs of the first `size` dimensions; cos_sin is [size / 2, 2].
void rotate(float* x, const float* cos_sin, int size) {
  for (int i = 0; i < size; i += 2) {
    float first = x[i], second = x[i + 1], cos = cos_sin[i], sin = cos_sin[i + 1];
    x[i] = first * cos - second * sin;
    x[i + 1] = second * cos + first * sin;
  }
}

uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

void write_row(const float* x, int dim, int kind, void* rows, float* scales, size_t row) {
  if (kind == 0) {
    std::memcpy(static_cast<float*>(rows) + row * dim, x, dim * sizeof(float));
  } else if (kind == 1) {
    uint16_t* out = static_cast<uint16_t*>(rows) + row * dim;
    for (int i = 0; i < dim; i++) out[i] = to_bf16(x[i]);
  } else {
    float peak = 0;
    for (int i = 0; i < dim; i++) peak = std::max(peak, std::fabs(x[i]));
    scales[row] = peak / 127;
    float inverse = peak > 0 ? 127 / peak : 0;
    int8_t* out = static_cast<int8_t*>(rows) + row * dim;
    for (int i = 0; i < dim; i++) out[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
  }
}

void read_rows(const void* rows, const float* scales, int kind, size_t first, int count, int dim,
               float* out) {
  for (int t = 0; t < count; t++, out += dim) {
    size_t at = (first + t) * dim;
    F scale = set1(kind == 2 ? scales[first + t] : 1.0f);
    for (int i = 0; i < dim; i += LANES) {
      if (kind == 0)
        store(out + i, load(static_cast<const float*>(rows) + at + i));
      else if (kind == 1)
        store(out + i, load_bf16(static_cast<const uint16_t*>(rows) + at + i));
      else
        store(out + i, load_int8(static_cast<const int8_t*>(rows) + at + i) * scale);
    }
  }
}

// c[i][lane] (+)= sum over k of a[i * a_i + k * a_k] * b[k][lane], MI values of i, 16 * NV lanes.
template <int MI, int NV>
INLINE void broadcast_product(const float* a, size_t a_i, size_t a_k, int depth, const float* b,
                              size_t lanes, float* c, bool add) {
  F acc[MI][NV];
  for (int i = 0; i < MI; i++)
    for (int v = 0; v < NV; v++)
      acc[i][v] = add ? load(c + i * lanes + v * LANES) : set1(0.0f);
  for (int k = 0; k < depth; k++) {
    F row[NV];
    for (int v = 0; v < NV; v++) row[v] = load(b + k * lanes + v * LANES);
    for (int i = 0; i < MI; i++) {
      F value = set1(a[i * a_i + k * a_k]);
      for (int v = 0; v < NV; v++) acc[i][v] = fma(value, row[v], acc[i][v]);
    }
  }
  for (int i = 0; i < MI; i++)
    for (int v = 0; v < NV; v++) store(c + i * lanes + v * LANES, acc[i][v]);
}

// The product for `count` values of i and any number of lanes (a multiple of 16).
void product(const float* a, size_t a_i, size_t a_k, int count, int depth, const float* b,
             int lanes, float* c, bool add) {
  constexpr int MI = ATTENTION_ROWS;
  for (int v = 0; v < lanes;) {
    bool three = v + 3 * LANES <= lanes;
    int i = 0;
    for (; i + MI <= count; i += MI) {
      const float* first = a + i * a_i;
      float* out = c + size_t(i) * lanes + v;
      if (three)
        broadcast_product<MI, 3>(first, a_i, a_k, depth, b + v, lanes, out, add);
      else
        broadcast_product<MI, 1>(first, a_i, a_k, depth, b + v, lanes, out, add);
    }
    for (; i < count; i++) {
      float* out = c + size_t(i) * lanes + v;
      if (three)
        broadcast_product<1, 3>(a + i * a_i, a_i, a_k, depth, b + v, lanes, out, add);
      else
        broadcast_product<1, 1>(a + i * a_i, a_i, a_k, depth, b + v, lanes, out, add);
    }
    v += three ? 3 * LANES : LANES;
  }
}

// Partial attention of up to MAX_QUERY_ROWS rows, laid out by lanes: a lane is one head of one
// token. Online softmax (arXiv 1805.02867) over steps of KEYS keys.
struct Rows {
  std::vector<float> queries, scores, sums, keys, values, limits, tops, totals;
  int lanes = 0;

  void start(int count, int dim) {
    lanes = (count + LANES - 1) / LANES * LANES;
    for (auto* buffer : {&queries, &sums}) buffer->assign(size_t(dim) * lanes, 0.0f);
    scores.resize(size_t(KEYS) * lanes);
    keys.resize(size_t(KEYS) * dim);
    values.resize(size_t(KEYS) * dim);
    limits.assign(lanes, 0.0f);
    tops.assign(lanes, -1e30f);
    totals.assign(lanes, 0.0f);
  }

  void step(const Cache& cache, size_t row, int first, int count, int dim, bool masked) {
    read_rows(cache.keys, cache.key_scales, cache.kind, row + first, count, dim, keys.data());
    read_rows(cache.values, cache.value_scales, cache.kind, row + first, count, dim, values.data());
    product(keys.data(), dim, 1, count, dim, queries.data(), lanes, scores.data(), false);
    for (int v = 0; v < lanes; v += LANES) softmax(first, count, dim, v, masked);
    product(values.data(), 1, dim, dim, count, scores.data(), lanes, sums.data(), true);
  }

  // Scores to weights; what was summed before shrinks where a higher score turns up.
  void softmax(int first, int count, int dim, int v, bool masked) {
    const F limit = load(limits.data() + v), never = set1(-1e30f);
    F top = load(tops.data() + v), total = load(totals.data() + v);
    F highest = top;
    for (int t = 0; t < count; t++) {
      float* p = scores.data() + size_t(t) * lanes + v;
      F score = load(p);
      if (masked) {
        score = where_above(set1(float(first + t)), limit, never, score);
        store(p, score);
      }
      highest = max(highest, score);
    }
    F shrink = exp(top - highest);
    total = total * shrink;
    for (int t = 0; t < count; t++) {
      float* p = scores.data() + size_t(t) * lanes + v;
      F weight = exp(load(p) - highest);
      if (masked) weight = where_above(set1(float(first + t)), limit, set1(0.0f), weight);
      total = total + weight;
      store(p, weight);
    }
    store(tops.data() + v, highest);
    store(totals.data() + v, total);
    for (int i = 0; i < dim; i++) {
      float* p = sums.data() + size_t(i) * lanes + v;
      store(p, load(p) * shrink);
    }
  }
};

// Neighbouring new tokens of one sequence and the heads of one group: what one thread attends.
struct Piece {
  const Cache* cache;
  int group, row, count;  // first row in the pass, and rows
  int past;               // columns before the first row's own
  int visible() const { return past + count; }
};

// Later parts see more keys: they stand first so that no thread ends with a long one.
void cut(const Block& block, const Cache* caches, int sequences, std::vector<Piece>& pieces) {
  const int most = std::max(1, MAX_QUERY_ROWS * block.groups / block.heads);
  int row = 0;
  for (int s = 0; s < sequences; row += caches[s++].tokens) {
    const Cache& cache = caches[s];
    for (int first = 0; first < cache.tokens; first += most)
      for (int group = 0; group < block.groups; group++)
        pieces.push_back({&cache, group, row + first, std::min(most, cache.tokens - first),
                          cache.length - cache.tokens + first});
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.visible() > b.visible(); });
}

// Attention of the new tokens of every sequence over its own keys; qkv holds rotated queries
// [rows, qkv_width]; context [rows, heads * dim].
void attend(const Block& block, const Cache* caches, int sequences, const float* qkv,
            float* context) {
  const int dim = block.head_dim, per_group = block.heads / block.groups;
  const int width = (block.heads + 2 * block.groups) * dim;
  static std::vector<Piece>& pieces = *new std::vector<Piece>;
  pieces.clear();
  cut(block, caches, sequences, pieces);
  const int jobs = static_cast<int>(pieces.size());
  // Few tokens make few jobs: then their keys are shared out as well.
  const int most = (pieces[0].visible() + 255) / 256;
  const int splits = std::max(1, std::min(most, (pool.size() + jobs - 1) / jobs));
  static std::vector<Rows>& all = *new std::vector<Rows>;
  if (splits > 1 && all.size() < size_t(jobs) * splits) all.resize(size_t(jobs) * splits);
  const float scale = 1 / std::sqrt(float(dim));

  auto run = [&](Rows& rows, const Piece& piece, int split) {
    rows.start(piece.count * per_group, dim);
    for (int t = 0; t < piece.count; t++)
      for (int h = 0; h < per_group; h++) {
        const float* q = qkv + size_t(piece.row + t) * width + (piece.group * per_group + h) * dim;
        int lane = t * per_group + h;
        rows.limits[lane] = float(piece.past + t);
        for (int i = 0; i < dim; i++) rows.queries[size_t(i) * rows.lanes + lane] = q[i] * scale;
      }
    const int visible = piece.visible();
    const int share = ((visible + splits - 1) / splits + KEYS - 1) / KEYS * KEYS;
    const int end = std::min(visible, (split + 1) * share);
    for (int t = split * share; t < end; t += KEYS) {
      int keys = std::min(KEYS, end - t);
      bool masked = t + keys - 1 > piece.past;
      rows.step(*piece.cache, size_t(piece.group) * piece.cache->capacity, t, keys, dim, masked);
    }
  };
  // Join the splits of a piece and write its context.
  auto finish = [&](Rows* rows, const Piece& piece) {
    for (int lane = 0; lane < piece.count * per_group; lane++) {
      float top = -1e30f, total = 0;
      for (int s = 0; s < splits; s++) top = std::max(top, rows[s].tops[lane]);
      float* out = context + size_t(piece.row + lane / per_group) * block.heads * dim +
                   (piece.group * per_group + lane % per_group) * dim;
      std::fill(out, out + dim, 0.0f);
      for (int s = 0; s < splits; s++) {
        float weight = std::exp(rows[s].tops[lane] - top);
        total += weight * rows[s].totals[lane];
        for (int i = 0; i < dim; i++)
          out[i] += weight * rows[s].sums[size_t(i) * rows[s].lanes + lane];
      }
      for (int i = 0; i < dim; i++) out[i] /= total;
    }
  };
  if (splits == 1) {
    pool.run(jobs, [&](int i) {
      static thread_local Rows rows;
      run(rows, pieces[i], 0);
      finish(&rows, pieces[i]);
    });
    return;
  }
  pool.run(jobs * splits, [&](int i) { run(all[i], pieces[i / splits], i % splits); });
  pool.run(jobs, [&](int job) { finish(&all[size_t(job) * splits], pieces[job]); });
}

// Rotate queries and keys in place; write keys and values to the cache's last columns.
void rotate_and_store(const Block& block, const Cache& cache, const float* cos_sin, float* qkv) {
  const int tokens = cache.tokens;
  const int dim = block.head_dim, heads = block.heads + block.groups;
  const int width = (heads + block.groups) * dim;
  parallel(tokens, 8, [&](int first, int last) {
    for (int t = first; t < last; t++) {
      float* row = qkv + size_t(t) * width;
      for (int h = 0; h < heads; h++)
        rotate(row + h * dim, cos_sin + size_t(t) * block.rotary_dim, block.rotary_dim);
      for (int g = 0; g < block.groups; g++) {
        size_t at = size_t(g) * cache.capacity + cache.length - tokens + t;
        const float* key = row + (block.heads + g) * dim;
        const float* value = row + (heads + g) * dim;
        write_row(key, dim, cache.kind, cache.keys, cache.key_scales, at);
        write_row(value, dim, cache.kind, cache.values, cache.value_scales, at);
      }
    }
  });
}

struct Scratch {
  std::vector<float> qkv, context, inner;
};
Scratch& shared = *new Scratch;

}  // namespace

extern "C" {

void glm_set_threads(int threads) {
  std::lock_guard<std::mutex> guard(engine_lock);
  pool.resize(threads);
}

// out [rows, w.rows] = x [rows, w.columns] w^T + bias.
void glm_linear(const Matrix* w, const float* x, int32_t rows, float* out) {
  std::lock_guard<std::mutex> guard(engine_lock);
  Activations a = quantize(rows, *w, [&](int m, float*) { return x + size_t(m) * w->columns; });
  multiply(*w, a, false, out);
}

// One whole block for the new tokens of some sequences, in order: x [rows, hidden] is updated in
// place; cos_sin [rows, rotary_dim / 2, 2]; caches [sequences].
void glm_block(const Block* block, const Cache* caches, int32_t sequences, const float* cos_sin,
               float* x) {
  std::lock_guard<std::mutex> guard(engine_lock);
  int tokens = 0;
  for (int s = 0; s < sequences; s++) tokens += caches[s].tokens;
  const Matrix &in = block->query_key_value, &dense = block->dense;
  const Matrix &up = block->h_to_4h, &down = block->to_h;
  const int hidden = in.columns;
  float* qkv = scratch(shared.qkv, size_t(tokens) * in.rows);
  float* context = scratch(shared.context, size_t(tokens) * dense.columns);
  float* inner = scratch(shared.inner, size_t(tokens) * up.rows);
  auto normed = [&](const float* weight) {
    return [=](int m, float* own) {
      return rms_norm(x + size_t(m) * hidden, weight, block->epsilon, hidden, own);
    };
  };
  multiply(in, quantize(tokens, in, normed(block->input_norm)), false, qkv);
  for (int s = 0, row = 0; s < sequences; row += caches[s++].tokens)
    rotate_and_store(*block, caches[s], cos_sin + size_t(row) * block->rotary_dim,
                     qkv + size_t(row) * in.rows);
  attend(*block, caches, sequences, qkv, context);
  auto context_row = [&](int m, float*) { return context + size_t(m) * dense.columns; };
  multiply(dense, quantize(tokens, dense, context_row), true, x);
  multiply(up, quantize(tokens, up, normed(block->post_norm)), false, inner);
  auto gated_row = [&](int m, float* own) {
    return gated(inner + size_t(m) * up.rows, down.columns, own);
  };
  multiply(down, quantize(tokens, down, gated_row), true, x);
}
}
