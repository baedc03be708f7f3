// What this processor can do at best: int8 dot products on registers, and reading memory.
// Prints one JSON object per line; kernel_limits.py compiles and runs it.
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

std::atomic<int64_t> sink{0};  // results go here so that no loop is optimised away

// Seconds until the slowest of `threads` workers is done; all start together.
double time_threads(int threads, const std::function<void(int)>& work) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t)
    pool.emplace_back([&, t] {
      ++ready;
      while (!go) std::this_thread::yield();  // spinning would hang under a real-time policy
      work(t);
    });
  while (ready < threads) std::this_thread::yield();
  auto start = Clock::now();
  go = true;
  for (auto& thread : pool) thread.join();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double best_of(int repeats, const std::function<double()>& run) {
  double best = run();
  for (int i = 1; i < repeats; ++i) best = std::min(best, run());
  return best;
}

// --- int8 dot products -------------------------------------------------------------------

constexpr int kAccumulators = 16;  // zmm16-31: hides a latency of 4-5 cycles at two per cycle
constexpr int kDotOps = 64 * 2;    // multiply and add of 64 bytes

#if defined(__AVX512VNNI__)
void dot_loop(int64_t rounds) {
  asm volatile(
      "vpxord %%zmm0, %%zmm0, %%zmm0\n"
      "1:\n"
      ".irp n, 16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
      "vpdpbusd %%zmm0, %%zmm0, %%zmm\\n\n"
      ".endr\n"
      "dec %0\n"
      "jnz 1b\n"
      : "+r"(rounds)
      :
      : "cc", "xmm0", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23",
        "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
}

void measure_dot(int threads) {
  const int64_t rounds = 20'000'000;
  double seconds = best_of(5, [&] { return time_threads(threads, [&](int) { dot_loop(rounds); }); });
  double ops = double(rounds) * kAccumulators * kDotOps * threads;
  std::printf("{\"limit\": \"vnni_gops\", \"threads\": %d, \"value\": %.1f}\n", threads,
              ops / seconds / 1e9);
}
#else
void measure_dot(int) {}  // no AVX-512 VNNI: nothing to compare with
#endif

// --- reading memory ----------------------------------------------------------------------

constexpr int64_t kLine = 64;

#if defined(__AVX512F__)
using Vector = __m512i;
Vector load(const uint8_t* p) { return _mm512_load_si512(p); }
Vector mix(Vector a, Vector b) { return _mm512_xor_si512(a, b); }
#else
using Vector = __m256i;
Vector load(const uint8_t* p) {
  auto q = reinterpret_cast<const __m256i*>(p);
  return _mm256_xor_si256(_mm256_load_si256(q), _mm256_load_si256(q + 1));
}
Vector mix(Vector a, Vector b) { return _mm256_xor_si256(a, b); }
#endif

// Reads `size` bytes as `kStreams` equal runs side by side, fetching `ahead` bytes early.
template <int kStreams>
void read_streams(const uint8_t* data, int64_t size, int64_t ahead) {
  const int64_t run = size / kStreams / (4 * kLine) * (4 * kLine);
  Vector acc[4] = {};
  for (int64_t i = 0; i < run; i += 4 * kLine)
    for (int s = 0; s < kStreams; ++s) {
      const uint8_t* p = data + s * run + i;
      for (int j = 0; j < 4; ++j) {
        if (ahead) _mm_prefetch(reinterpret_cast<const char*>(p + j * kLine + ahead), _MM_HINT_T0);
        acc[j] = mix(acc[j], load(p + j * kLine));
      }
    }
  alignas(64) int64_t out[8] = {};
  Vector all = mix(mix(acc[0], acc[1]), mix(acc[2], acc[3]));
  std::memcpy(out, &all, sizeof all);
  sink += out[0];
}

using Reader = void (*)(const uint8_t*, int64_t, int64_t);

struct Pattern {
  int streams;
  Reader read;
};

uint8_t* allocate(int64_t size, bool huge) {
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) std::exit(1);
  madvise(p, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  std::memset(p, 1, size);
  return static_cast<uint8_t*>(p);
}

void measure_read(int threads, const uint8_t* data, int64_t size, bool huge) {
  const Pattern patterns[] = {{1, read_streams<1>}, {2, read_streams<2>}, {4, read_streams<4>},
                              {8, read_streams<8>}};
  const int64_t part = size / threads / 4096 * 4096;
  for (const auto& pattern : patterns)
    for (int64_t ahead : {0, 512, 1024, 2048, 4096}) {
      double seconds = best_of(3, [&] {
        return time_threads(threads, [&](int t) { pattern.read(data + t * part, part, ahead); });
      });
      std::printf(
          "{\"limit\": \"read_gbs\", \"threads\": %d, \"value\": %.2f, \"streams\": %d, "
          "\"prefetch\": %ld, \"huge_pages\": %s}\n",
          threads, double(part) * threads / seconds / 1e9, pattern.streams, long(ahead),
          huge ? "true" : "false");
    }
}

}  // namespace

int main(int argc, char** argv) {
  const int most = argc > 1 ? std::atoi(argv[1]) : 2;
  const int64_t size = (argc > 2 ? std::atoll(argv[2]) : 1536) << 20;
  for (int threads = 1; threads <= most; threads *= 2) measure_dot(threads);
  for (bool huge : {false, true}) {
    uint8_t* data = allocate(size, huge);
    for (int threads = 1; threads <= most; threads *= 2) measure_read(threads, data, size, huge);
    munmap(data, size);
  }
  std::fprintf(stderr, "%ld\n", long(sink));
}
