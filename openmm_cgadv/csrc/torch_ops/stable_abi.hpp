// The C functions of torch's stable ABI (torch/csrc/inductor/aoti_torch/c/shim.h, the same from
// torch 2.9 on) that the operators need.
//
// Declared here so that building needs no torch: neither its headers nor its libraries, for which
// CMakeLists.txt has an empty stand-in.
#pragma once

#include <cstdint>

extern "C" {
struct AtenTensorOpaque;
struct TorchLibraryOpaque;
using AtenTensorHandle = AtenTensorOpaque*;
using TorchLibraryHandle = TorchLibraryOpaque*;
using AOTITorchError = int32_t;  // 0 is success
using StableIValue = uint64_t;
using Kernel = void(StableIValue* stack, uint64_t n_inputs, uint64_t n_outputs);

int32_t aoti_torch_dtype_float64();
int32_t aoti_torch_dtype_int64();
int32_t aoti_torch_device_type_cpu();

AOTITorchError aoti_torch_empty_strided(int64_t dim, const int64_t* sizes, const int64_t* strides,
                                        int32_t dtype, int32_t device_type, int32_t device_index,
                                        AtenTensorHandle* tensor);
AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle);
AOTITorchError aoti_torch_get_dim(AtenTensorHandle, int64_t*);
AOTITorchError aoti_torch_get_size(AtenTensorHandle, int64_t dim, int64_t*);
AOTITorchError aoti_torch_get_numel(AtenTensorHandle, int64_t*);
AOTITorchError aoti_torch_get_data_ptr(AtenTensorHandle, void**);
AOTITorchError aoti_torch_get_dtype(AtenTensorHandle, int32_t*);
AOTITorchError aoti_torch_get_device_type(AtenTensorHandle, int32_t*);
AOTITorchError aoti_torch_is_contiguous(AtenTensorHandle, bool*);

AOTITorchError aoti_torch_library_init_def(const char* name, const char* file, uint32_t line,
                                           TorchLibraryHandle*);
AOTITorchError aoti_torch_library_init_impl(const char* name, const char* dispatch_key,
                                            const char* file, uint32_t line, TorchLibraryHandle*);
AOTITorchError aoti_torch_library_def(TorchLibraryHandle, const char* schema);
AOTITorchError aoti_torch_library_impl(TorchLibraryHandle, const char* name, Kernel*);
AOTITorchError aoti_torch_delete_library_object(TorchLibraryHandle);
}
