# Read by llama-cpp-python's build right after project(). The library needs nothing of llama.cpp's
# "common" (argument parser, HTTP client, chat parsers): its programs and the multimodal part do.
# An ordinary variable, because llama-cpp-python forces the cached one to ON.
set(LLAMA_BUILD_COMMON OFF)
