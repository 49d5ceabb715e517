# SPDX-License-Identifier: Apache-2.0
# qy_module(name SOURCES ... DEPENDS module ... LIBRARIES target ...)
#   One folder, one static library, alias quarry::<name>, public header <name>/<name>.h.
# qy_kernel_sources(target level source ...)
#   Compiles sources with the instruction set of a kernel level (avx2, avx512).
# qy_test(name SOURCES ... LIBRARIES ... [ARGS ...] [TIMEOUT s] [LABELS ...])
#   One test program, ctest name <name>; exit code 77 is a skip.

add_library(qy_flags INTERFACE)
target_compile_features(qy_flags INTERFACE c_std_11)
target_include_directories(qy_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_definitions(qy_flags INTERFACE _GNU_SOURCE)
# Texts are cut at the size of their buffer on purpose: gcc's format-truncation says so each time.
target_compile_options(qy_flags INTERFACE $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>
  -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
  $<$<BOOL:${QY_WERROR}>:-Werror> -fvisibility=hidden -fno-math-errno -ffp-contract=off
  $<$<BOOL:${QY_ASAN}>:-fsanitize=address,undefined> $<$<BOOL:${QY_ASAN}>:-fno-sanitize-recover=all>
  $<$<BOOL:${QY_TSAN}>:-fsanitize=thread> $<$<BOOL:${QY_FUZZ}>:-fsanitize=fuzzer-no-link>)
target_link_options(qy_flags INTERFACE
  $<$<BOOL:${QY_ASAN}>:-fsanitize=address,undefined> $<$<BOOL:${QY_TSAN}>:-fsanitize=thread>)

function(qy_module name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPENDS;LIBRARIES" ${ARGN})
  add_library(qy_${name} STATIC ${A_SOURCES})
  add_library(quarry::${name} ALIAS qy_${name})
  set_target_properties(qy_${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(qy_${name} PRIVATE $<BUILD_INTERFACE:qy_flags> ${A_LIBRARIES})
  foreach(dep IN LISTS A_DEPENDS)
    target_link_libraries(qy_${name} PUBLIC qy_${dep})
  endforeach()
  set_property(GLOBAL APPEND PROPERTY QY_MODULES ${name})
endfunction()

function(qy_kernel_sources target level)
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    return()
  endif()
  set(avx2 -mavx2 -mfma -mf16c -mbmi2)
  set(avx512 ${avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mprefer-vector-width=512)
  set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS "${${level}};-ffp-contract=fast")
  target_sources(${target} PRIVATE ${ARGN})
endfunction()

function(qy_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;LIBRARIES;ARGS;LABELS" ${ARGN})
  string(REPLACE "." "_" target "test.${name}")
  add_executable(${target} ${A_SOURCES})
  target_link_libraries(${target} PRIVATE qy_flags PkgConfig::cmocka ${A_LIBRARIES})
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${target} ${A_ARGS} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT ${A_TIMEOUT} LABELS "${A_LABELS}")
endfunction()
