// Marks a function for both sides. Everything in csrc/schedule is plain C++17 without torch, Python or
// CUDA headers, so that one text serves the host engine, the CPU operator and the CUDA kernel.
#pragma once

#ifdef __CUDACC__
#define FASTSCHED_HD __host__ __device__ inline
#else
#define FASTSCHED_HD inline
#endif
