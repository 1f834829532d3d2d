# CMake includes this file at the start of llama.cpp's build, and of ggml's
# inside it (CMAKE_PROJECT_INCLUDE in .cargo/config.toml): the one place where
# its sources are compiled otherwise than it would itself.
if (CMAKE_C_COMPILER_ID MATCHES "GNU|Clang")
    add_compile_options("$<$<COMPILE_LANGUAGE:C>:SHELL:-include \"${CMAKE_CURRENT_LIST_DIR}/relax.h\">")
endif()

# Puts `new` for `old` in a source, where it has to stand just once.
function (llm_api_replace source old new)
    string(REPLACE "${old}" "" without "${${source}}")
    string(LENGTH "${old}" length)
    string(LENGTH "${${source}}" before)
    string(LENGTH "${without}" after)
    math(EXPR places "(${before} - ${after}) / ${length}")
    if (NOT places EQUAL 1)
        message(FATAL_ERROR "llama.cpp has changed: not once but ${places} times in it: ${old}")
    endif()
    string(REPLACE "${old}" "${new}" replaced "${${source}}")
    set(${source} "${replaced}" PARENT_SCOPE)
endfunction()

# Compiles `text` in place of a source of `target`, if it has that one; headers
# are found in `theirs` as before.
function (llm_api_swap target source theirs text)
    get_filename_component(name "${source}" NAME)
    set(changed "${CMAKE_CURRENT_BINARY_DIR}/llm-api/${name}")
    file(CONFIGURE OUTPUT "${changed}" CONTENT "${text}" @ONLY)
    get_target_property(sources ${target} SOURCES)
    if ("${source}" IN_LIST sources)
        list(TRANSFORM sources REPLACE "^${source}$" "${changed}")
        set_target_properties(${target} PROPERTIES SOURCES "${sources}")
        target_include_directories(${target} PRIVATE "${theirs}")
        # llama.cpp compiles the models' files together, and these are none.
        set_source_files_properties("${changed}" TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    endif()
endfunction()

# The same in ggml's CPU backends: there is one for each generation of CPUs.
function (llm_api_swap_in_backends source text)
    set(theirs "${CMAKE_CURRENT_SOURCE_DIR}/src/ggml-cpu")
    get_property(targets DIRECTORY "${CMAKE_CURRENT_SOURCE_DIR}/src" PROPERTY BUILDSYSTEM_TARGETS)
    list(FILTER targets INCLUDE REGEX "^ggml-cpu")
    foreach (target IN LISTS targets)
        llm_api_swap(${target} "ggml-cpu/${source}" "${theirs}" "${text}")
    endforeach()
endfunction()

# ggml's CPU backends get operations whose attention passes over masked cells,
# and shares the work of a single row as that of several: by heads. ggml shares
# a single row's by cells, from 512 on, and a row's bits then depend on how many
# rows and threads there are; and of one pool all cells of a sequence may lie in
# one thread's part. Where threads are more than heads it still does.
function (llm_api_change_attention ours)
    file(READ "${CMAKE_CURRENT_SOURCE_DIR}/src/ggml-cpu/ops.cpp" text)
    string(PREPEND text "#include \"${ours}/masked.h\"\n")
    llm_api_replace(text
        "for (int64_t ic = ic_start; ic < ic_end; ++ic) {"
        "for (int64_t ic = llm_api_next_seen(mp, ic_start, ic_end); ic < ic_end; ic = llm_api_next_seen(mp, ic + 1, ic_end)) {")
    llm_api_replace(text
        "bool can_skip = true;"
        "bool can_skip = true;
                const char * seen = (const char *) mask->data + iq1*mask->nb[1] + (iq2%mask->ne[2])*mask->nb[2] + (iq3%mask->ne[3])*mask->nb[3];
                if (llm_api_all_masked(seen, mask->nb[1], tile_rows, ic, kv_tile)) {
                    continue;
                }")
    llm_api_replace(text
        "q->type == GGML_TYPE_F32 && nek1 >= 512;"
        "q->type == GGML_TYPE_F32 && nek1 >= 512 && neq2 < nth;")

    llm_api_swap_in_backends(ops.cpp "${text}")
endfunction()

# Threads take long pieces of a product, where ggml's are short.
function (llm_api_share_products ours)
    file(READ "${CMAKE_CURRENT_SOURCE_DIR}/src/ggml-cpu/ggml-cpu.c" text)
    string(PREPEND text "#include \"${ours}/sharing.h\"\n")
    llm_api_replace(text
        "    // Now select a reasonable chunk size.
    int chunk_size = 16;"
        "    if (llm_api_shares(nr0, nth) && !ggml_is_numa()) {
        for (int64_t index = ith;; index = atomic_fetch_add_explicit(&params->threadpool->current_chunk, 1, memory_order_relaxed)) {
            const struct llm_api_piece piece = llm_api_piece_at(index, nr0, nr1, nth);
            const int64_t weights = piece.weights_end - piece.weights_begin;
            const int64_t inputs = piece.inputs_end - piece.inputs_begin;
            if (piece.weights_begin >= nr0) {
                return;
            }
            // Some take two rows at a time, and no odd one; as below.
            const bool odd = nr0 % 2 != 0 || ne11 % 2 != 0 || weights % 2 != 0 || inputs % 2 != 0;
            ggml_compute_forward_mul_mat_one_chunk(params, dst, src0->type, odd ? 1 : vec_dot_num_rows,
                piece.weights_begin, piece.weights_end, piece.inputs_begin, piece.inputs_end);
        }
    }

    // Now select a reasonable chunk size.
    int chunk_size = 16;")
    llm_api_swap_in_backends(ggml-cpu.c "${text}")
endfunction()

# llama.cpp's cache puts the cells of a sequence beside each other. A cell can
# be taken as before: it is empty, or no window of its sequence reaches back.
function (llm_api_place_cells ours)
    set(theirs "${CMAKE_CURRENT_SOURCE_DIR}/src")
    file(READ "${theirs}/llama-kv-cache.cpp" text)
    string(PREPEND text "#include \"${ours}/placing.h\"\n")
    llm_api_replace(text
        "        uint32_t n_tested = 0;"
        "        if (!cont) {
            res.idxs[s] = llm_api_place(
                cells.size(), n_tokens,
                [&](uint32_t cell) {
                    if (swa_type == LLAMA_SWA_TYPE_NONE || cells.is_empty(cell) || cells.seq_count(cell) != 1) {
                        return cells.is_empty(cell);
                    }
                    const llama_pos next = cells.seq_pos_max(cells.seq_get(cell)) + 1;
                    return llama_hparams::is_masked_swa(n_swa, swa_type, cells.pos_get(cell), next);
                },
                [&](uint32_t token) { return ubatch.seq_id[s*n_tokens + token][0]; },
                [&](llama_seq_id sequence) -> int64_t {
                    const auto & own = cells.seq_pos_get(sequence);
                    return own.empty() ? -1 : (int64_t) own.rbegin()->second;
                });
            if (res.idxs[s].size() < n_tokens) {
                return { };
            }
            continue;
        }

        uint32_t n_tested = 0;")
    llm_api_swap(llama llama-kv-cache.cpp "${theirs}" "${text}")
endfunction()

# Logits are read where they were computed, instead of copied out of there: 1 MB
# a row of a vocabulary of 262,144. They stay until the next graph is computed.
function (llm_api_leave_logits)
    set(theirs "${CMAKE_CURRENT_SOURCE_DIR}/src")
    file(READ "${theirs}/llama-context.cpp" text)
    llm_api_replace(text
        "                ggml_backend_tensor_get_async(backend_res, t_logits, logits_out, 0, n_outputs*n_vocab*sizeof(float));"
        "                const auto * owner = t_logits->view_src ? t_logits->view_src : t_logits;
                // Else another part of the batch is computed where these are.
                if (ubatch.n_tokens == n_tokens_all && ggml_backend_buffer_is_host(owner->buffer)) {
                    logits.data = (float *) t_logits->data;
                } else {
                    ggml_backend_tensor_get_async(backend_res, t_logits, logits_out, 0, n_outputs*n_vocab*sizeof(float));
                }")
    llm_api_swap(llama llama-context.cpp "${theirs}" "${text}")
endfunction()

if (PROJECT_NAME STREQUAL "llama.cpp")
    cmake_language(EVAL CODE "cmake_language(DEFER CALL llm_api_place_cells [[${CMAKE_CURRENT_LIST_DIR}]])")
    cmake_language(DEFER CALL llm_api_leave_logits)
endif()
if (PROJECT_NAME STREQUAL "ggml")
    # When all of ggml's targets are there.
    cmake_language(EVAL CODE "cmake_language(DEFER CALL llm_api_change_attention [[${CMAKE_CURRENT_LIST_DIR}]])")
    cmake_language(EVAL CODE "cmake_language(DEFER CALL llm_api_share_products [[${CMAKE_CURRENT_LIST_DIR}]])")
endif()
