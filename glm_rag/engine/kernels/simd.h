// Sixteen lanes of float or int32: one 512-bit register, or two of 256 bits with AVX2.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define INLINE static inline __attribute__((always_inline))

constexpr int LANES = 16;

INLINE int32_t load_i32(const void* p) {
  int32_t v;
  std::memcpy(&v, p, 4);
  return v;
}

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

struct F {
  __m512 v;
};
struct I {
  __m512i v;
};
// Four unsigned bytes in each of 16 lanes.
struct Bytes {
  __m512i v;
};

// Rows and blocks of 16 columns whose sums stay in registers; measured best of the shapes tried.
constexpr int TILE_ROWS = 4, TILE_BLOCKS = 3, ATTENTION_ROWS = 8;

INLINE F set1(float x) { return {_mm512_set1_ps(x)}; }
INLINE I set1(int32_t x) { return {_mm512_set1_epi32(x)}; }
INLINE F load(const float* p) { return {_mm512_loadu_ps(p)}; }
INLINE void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
INLINE F load_half(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
INLINE F load_bf16(const uint16_t* p) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
INLINE F load_int8(const int8_t* p) {
  __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}
INLINE F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
INLINE F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
INLINE F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
INLINE F operator/(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
INLINE F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
INLINE F max(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
INLINE F min(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
INLINE F abs(F a) { return {_mm512_abs_ps(a.v)}; }
INLINE float sum(F a) { return _mm512_reduce_add_ps(a.v); }
INLINE float largest(F a) { return _mm512_reduce_max_ps(a.v); }
INLINE F to_float(I a) { return {_mm512_cvtepi32_ps(a.v)}; }
INLINE I round_to_int(F a) { return {_mm512_cvtps_epi32(a.v)}; }
INLINE I operator+(I a, I b) { return {_mm512_add_epi32(a.v, b.v)}; }
INLINE int32_t sum(I a) { return _mm512_reduce_add_epi32(a.v); }
INLINE void store_int8(int8_t* p, I a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
INLINE F times_power_of_two(F a, F n) { return {_mm512_scalef_ps(a.v, n.v)}; }
INLINE F nearest(F a) { return {_mm512_roundscale_ps(a.v, 0)}; }
INLINE F where_above(F a, F limit, F then, F otherwise) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, limit.v, _CMP_GT_OQ), otherwise.v, then.v)};
}
INLINE Bytes load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
INLINE void store_bytes(uint8_t* p, Bytes a) { _mm512_storeu_si512(p, a.v); }
INLINE Bytes low_nibbles(Bytes a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
INLINE Bytes high_nibbles(Bytes a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}
// Per lane: sum += w[0..3] * a[0..3], w unsigned, a the four signed bytes of `four`.
template <int BITS>
INLINE I dot(I acc, Bytes w, int32_t four) {
  return {_mm512_dpbusd_epi32(acc.v, w.v, _mm512_set1_epi32(four))};
}

#else

struct F {
  __m256 a, b;
};
struct I {
  __m256i a, b;
};
struct Bytes {
  __m256i a, b;
};

constexpr int TILE_ROWS = 2, TILE_BLOCKS = 2, ATTENTION_ROWS = 4;

INLINE F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE I set1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
INLINE F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void store(float* p, F x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
INLINE __m128i load_128(const void* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
INLINE F load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(load_128(p)), _mm256_cvtph_ps(load_128(p + 8))};
}
INLINE __m256 bf16_half(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_128(p)), 16));
}
INLINE F load_bf16(const uint16_t* p) { return {bf16_half(p), bf16_half(p + 8)}; }
INLINE F load_int8(const int8_t* p) {
  __m128i bytes = load_128(p);
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
INLINE F operator+(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
INLINE F operator-(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
INLINE F operator*(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
INLINE F operator/(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
INLINE F fma(F x, F y, F z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
INLINE F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
INLINE F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
INLINE F abs(F x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
INLINE float sum(F x) {
  float v[LANES], s = 0;
  store(v, x);
  for (float y : v) s += y;
  return s;
}
INLINE float largest(F x) {
  float v[LANES], m;
  store(v, x);
  m = v[0];
  for (float y : v) m = y > m ? y : m;
  return m;
}
INLINE F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
INLINE I round_to_int(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
INLINE I operator+(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
INLINE int32_t sum(I x) {
  int32_t v[LANES], s = 0;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(v), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(v + 8), x.b);
  for (int32_t y : v) s += y;
  return s;
}
INLINE void store_int8(int8_t* p, I x) {
  int32_t v[LANES];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(v), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(v + 8), x.b);
  for (int i = 0; i < LANES; i++) p[i] = static_cast<int8_t>(v[i]);
}
INLINE __m256 scale_half(__m256 x, __m256 n) {
  __m256i exponent = _mm256_slli_epi32(
      _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(x, _mm256_castsi256_ps(exponent));
}
INLINE F times_power_of_two(F x, F n) { return {scale_half(x.a, n.a), scale_half(x.b, n.b)}; }
INLINE F nearest(F x) { return {_mm256_round_ps(x.a, 0), _mm256_round_ps(x.b, 0)}; }
INLINE F where_above(F x, F limit, F then, F otherwise) {
  return {_mm256_blendv_ps(otherwise.a, then.a, _mm256_cmp_ps(x.a, limit.a, _CMP_GT_OQ)),
          _mm256_blendv_ps(otherwise.b, then.b, _mm256_cmp_ps(x.b, limit.b, _CMP_GT_OQ))};
}
INLINE Bytes load_bytes(const uint8_t* p) {
  const __m256i* q = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
INLINE void store_bytes(uint8_t* p, Bytes x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p) + 1, x.b);
}
INLINE Bytes low_nibbles(Bytes x) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
INLINE Bytes high_nibbles(Bytes x) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(_mm256_srli_epi16(x.a, 4), mask),
          _mm256_and_si256(_mm256_srli_epi16(x.b, 4), mask)};
}
// maddubs adds neighbours in 16 bits: 2 * 15 * 127 fits, 2 * 255 * 127 would saturate, so int8
// weights go as even and odd bytes apart.
template <int BITS>
INLINE __m256i dot_half(__m256i acc, __m256i w, __m256i a) {
  const __m256i ones = _mm256_set1_epi16(1);
  if (BITS == 4) return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), ones));
  const __m256i low = _mm256_set1_epi16(255);
  __m256i even = _mm256_maddubs_epi16(_mm256_and_si256(w, low), a);
  __m256i odd = _mm256_maddubs_epi16(_mm256_andnot_si256(low, w), a);
  acc = _mm256_add_epi32(acc, _mm256_madd_epi16(even, ones));
  return _mm256_add_epi32(acc, _mm256_madd_epi16(odd, ones));
}
template <int BITS>
INLINE I dot(I acc, Bytes w, int32_t four) {
  __m256i a = _mm256_set1_epi32(four);
  return {dot_half<BITS>(acc.a, w.a, a), dot_half<BITS>(acc.b, w.b, a)};
}

#endif

// e^x, x cut to what a float's exponent holds: 2^n * p(r), n = round(x / ln 2), |r| <= ln 2 / 2. The polynomial is the Taylor
// series to r^6 / 720; its relative error on this range is below 2e-7.
INLINE F exp(F x) {
  x = min(max(x, set1(-87.0f)), set1(88.0f));
  F n = nearest(x * set1(1.44269504f));
  F r = fma(n, set1(-0.693359375f), x);
  r = fma(n, set1(2.12194440e-4f), r);
  F p = set1(1.0f / 720);
  p = fma(p, r, set1(1.0f / 120));
  p = fma(p, r, set1(1.0f / 24));
  p = fma(p, r, set1(1.0f / 6));
  p = fma(p, r, set1(0.5f));
  p = fma(p, r, set1(1.0f));
  p = fma(p, r, set1(1.0f));
  return times_power_of_two(p, n);
}
