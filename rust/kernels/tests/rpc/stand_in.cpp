// ggml's RPC backend, and what makes its device more like a GPU: long products
// that it takes over from the CPU, and memory of the host that it can reach.
#include "ggml-rpc.cpp"

static ggml_backend_buffer_type_t host_memory(ggml_backend_dev_t device) {
    static ggml_backend_buffer_type type = *ggml_backend_cpu_buffer_type();
    type.device = device;
    type.iface.get_name = [](ggml_backend_buffer_type_t) { return "HOST"; };
    return &type;
}

static bool takes_over(ggml_backend_dev_t, const ggml_tensor * op) {
    return op->op == GGML_OP_MUL_MAT && op->ne[1] >= 32;
}

extern "C" void stand_in(ggml_backend_dev_t device, bool with_host_memory) {
    device->iface.offload_op = takes_over;
    device->iface.get_host_buffer_type = with_host_memory ? host_memory : nullptr;
}
