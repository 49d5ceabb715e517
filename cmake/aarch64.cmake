# SPDX-License-Identifier: Apache-2.0
# Cross compile for aarch64, to see that the plain kernels and everything above them do: objects
# and archives only (nothing is linked, so the target's libraries are not needed).
#   cmake -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake -DBUILD_TESTING=OFF
#   cmake --build build/aarch64 --target qy_archives
# The third-party headers are this machine's, through links in a folder of their own: /usr/include
# itself would bring this machine's C library along.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(shim ${CMAKE_BINARY_DIR}/host_headers)
foreach(prefix /usr/include/${CMAKE_HOST_SYSTEM_PROCESSOR}-linux-gnu /usr/include /usr/local/include)
  file(GLOB_RECURSE headers RELATIVE ${prefix} ${prefix}/hwloc.h ${prefix}/hwloc/*.h ${prefix}/ini.h
    ${prefix}/sodium.h ${prefix}/sodium/*.h ${prefix}/xxhash.h ${prefix}/pcre2.h ${prefix}/cjson/*.h)
  list(FILTER headers INCLUDE REGEX "^(hwloc|cjson|sodium)/|^[a-z0-9]+[.]h$")
  foreach(header IN LISTS headers)
    if(NOT EXISTS ${shim}/${header})
      get_filename_component(folder ${shim}/${header} DIRECTORY)
      file(MAKE_DIRECTORY ${folder})
      file(CREATE_LINK ${prefix}/${header} ${shim}/${header} SYMBOLIC)
    endif()
  endforeach()
endforeach()
set(CMAKE_C_FLAGS_INIT "-isystem ${shim}")
set(QY_DENSE plain CACHE STRING "")
foreach(part FAISS NET CUDA HTTP)
  set(QY_${part} OFF CACHE STRING "")
endforeach()
