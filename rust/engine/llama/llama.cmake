# CMake includes this file at the start of llama.cpp's build
# (CMAKE_PROJECT_INCLUDE in .cargo/config.toml): the one place where its
# sources are compiled otherwise than it would itself.
if (CMAKE_C_COMPILER_ID MATCHES "GNU|Clang")
    add_compile_options("$<$<COMPILE_LANGUAGE:C>:SHELL:-include \"${CMAKE_CURRENT_LIST_DIR}/relax.h\">")
endif()
