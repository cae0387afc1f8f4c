// Marks a function for host and device. Everything in csrc/schedule is plain C++17 without torch, Python or
// CUDA headers, so the same source serves the host engine, the CPU operator and the CUDA kernel.
#pragma once

#ifdef __CUDACC__
#define FASTSCHED_HD __host__ __device__ inline
#else
#define FASTSCHED_HD inline
#endif
