// A pool that stays awake between the short jobs of one forward pass and sleeps afterwards.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include <immintrin.h>

class Pool {
 public:
  // Threads are started on demand and never joined: they sleep until the process ends.
  void resize(int threads) {
    wanted_ = threads < 1 ? 1 : threads;
    while (static_cast<int>(workers_.size()) < wanted_ - 1) {
      int number = static_cast<int>(workers_.size());
      unsigned seen = generation_.load(std::memory_order_acquire);
      workers_.emplace_back([this, number, seen] { work(number, seen); });
      workers_.back().detach();
    }
  }

  int size() const { return wanted_; }

  // Call task(i) for i in [0, count), each once, on any thread. One caller at a time.
  template <class Task>
  void run(int count, const Task& task) {
    if (count <= 1 || wanted_ == 1) {
      for (int i = 0; i < count; i++) task(i);
      return;
    }
    call_ = [](const void* t, int i) { (*static_cast<const Task*>(t))(i); };
    task_ = &task;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(wanted_ - 1, std::memory_order_relaxed);
    {
      // Under the lock, so that a worker about to sleep cannot miss it.
      std::lock_guard<std::mutex> guard(lock_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    if (sleeping_.load(std::memory_order_acquire)) wake_.notify_all();
    take();
    while (busy_.load(std::memory_order_acquire)) _mm_pause();
  }

 private:
  void take() {
    for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) call_(task_, i);
  }

  void work(int number, unsigned seen) {
    for (;;) {
      seen = wait(seen);
      if (number >= wanted_ - 1) continue;
      take();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  unsigned wait(unsigned seen) {
    auto start = std::chrono::steady_clock::now();
    for (unsigned spins = 1;; spins++) {
      unsigned now = generation_.load(std::memory_order_acquire);
      if (now != seen) return now;
      _mm_pause();
      if (spins % 64 == 0 && std::chrono::steady_clock::now() - start > AWAKE) break;
    }
    std::unique_lock<std::mutex> guard(lock_);
    sleeping_++;
    wake_.wait(guard, [&] { return generation_.load(std::memory_order_acquire) != seen; });
    sleeping_--;
    return generation_.load(std::memory_order_acquire);
  }

  // Longer than what Python needs between two layers, shorter than anybody would notice.
  static constexpr std::chrono::microseconds AWAKE{200};

  std::vector<std::thread> workers_;
  std::mutex lock_;
  std::condition_variable wake_;
  std::atomic<unsigned> generation_{0};
  std::atomic<int> next_{0}, busy_{0}, sleeping_{0};
  int wanted_ = 1, count_ = 0;
  const void* task_ = nullptr;
  void (*call_)(const void*, int) = nullptr;
};
