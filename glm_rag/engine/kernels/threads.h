// A pool that stays awake between the short jobs of one forward pass and sleeps afterwards.
#pragma once
#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include <immintrin.h>

class Pool {
 public:
  static constexpr int MOST = 255;

  void resize(int threads) { size_ = std::max(1, std::min(threads, MOST)); }

  int size() const { return size_; }

  // Call task(i) for i in [0, count), each once, on any thread. One caller at a time.
  template <class Task>
  void run(int count, const Task& task) {
    if (count <= 1 || size_ == 1) {
      for (int i = 0; i < count; i++) task(i);
      return;
    }
    start();
    call_ = [](const void* t, int i) { (*static_cast<const Task*>(t))(i); };
    task_ = &task;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(size_ - 1, std::memory_order_relaxed);
    // Number and size go out as one value: a worker that wakes late still knows whether the job
    // it woke for counts on it.
    uint64_t number = (job_.load(std::memory_order_relaxed) >> 8) + 1;
    {
      // Under the lock, so that a worker about to sleep cannot miss it.
      std::lock_guard<std::mutex> guard(lock_);
      job_.store(number << 8 | uint64_t(size_ - 1), std::memory_order_release);
    }
    if (sleeping_.load(std::memory_order_acquire)) wake_.notify_all();
    take();
    for (unsigned spins = 1; busy_.load(std::memory_order_acquire); spins++) {
      _mm_pause();
      // With more threads than processors the one waited for may need this one's. Not sooner: on
      // a shared machine, who yields waits for a whole time slice of somebody else.
      if (spins % PATIENCE == 0) std::this_thread::yield();
    }
  }

 private:
  // Threads are started on demand and never joined: they sleep until the process ends.
  void start() {
    while (static_cast<int>(workers_.size()) < size_ - 1) {
      int number = static_cast<int>(workers_.size());
      uint64_t seen = job_.load(std::memory_order_acquire);
      workers_.emplace_back([this, number, seen] { work(number, seen); });
      workers_.back().detach();
    }
  }

  void take() {
    for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) call_(task_, i);
  }

  void work(int number, uint64_t seen) {
    bool counted = true;
    for (;;) {
      seen = wait(seen, counted);
      counted = number < static_cast<int>(seen & MOST);
      if (!counted) continue;
      take();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  // The value of the next job. Who is not needed at present sleeps at once.
  uint64_t wait(uint64_t seen, bool awake) {
    auto start = std::chrono::steady_clock::now();
    for (unsigned spins = 1; awake; spins++) {
      uint64_t now = job_.load(std::memory_order_acquire);
      if (now != seen) return now;
      _mm_pause();
      if (spins % 64 == 0 && std::chrono::steady_clock::now() - start > AWAKE) break;
    }
    std::unique_lock<std::mutex> guard(lock_);
    sleeping_++;
    wake_.wait(guard, [&] { return job_.load(std::memory_order_acquire) != seen; });
    sleeping_--;
    return job_.load(std::memory_order_acquire);
  }

  // Longer than what Python needs between two layers, shorter than anybody would notice.
  static constexpr std::chrono::microseconds AWAKE{200};
  static constexpr unsigned PATIENCE = 1 << 16;  // about a millisecond

  std::vector<std::thread> workers_;
  std::mutex lock_;
  std::condition_variable wake_;
  std::atomic<uint64_t> job_{0};  // number of the job << 8 | workers it counts on
  std::atomic<int> next_{0}, busy_{0}, sleeping_{0};
  int size_ = 1, count_ = 0;
  const void* task_ = nullptr;
  void (*call_)(const void*, int) = nullptr;
};
