# SPDX-License-Identifier: Apache-2.0
# libquarry.so from all modules, and what `cmake --install` puts where. The public headers include
# no third-party header, so a consumer needs nothing but libquarry: no find_dependency, no Requires.
include(CMakePackageConfigHelpers)

get_property(qy_modules GLOBAL PROPERTY QY_MODULES)
list(REMOVE_ITEM qy_modules serve)   # the program's own
set(qy_archives ${qy_modules})
list(REVERSE qy_archives)            # users before what they use: each archive is named once
list(TRANSFORM qy_archives PREPEND qy_)
list(JOIN qy_archives "," qy_whole)

file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/quarry_version.c @ONLY CONTENT
"/* SPDX-License-Identifier: Apache-2.0 */
/* A shared library needs a source of its own; everything else comes from the modules. */
const char *qyi_library_version(void);
const char *qyi_library_version(void)
{
    return \"@PROJECT_VERSION@\";
}
")
add_library(quarry_shared SHARED ${PROJECT_BINARY_DIR}/quarry_version.c)
add_library(quarry::quarry ALIAS quarry_shared)
set_target_properties(quarry_shared PROPERTIES
  OUTPUT_NAME quarry EXPORT_NAME quarry
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}
  LINK_LIBRARY_OVERRIDE "WHOLE_ARCHIVE,${qy_whole}") # also where a module names another as its own
target_link_libraries(quarry_shared PRIVATE
  $<BUILD_INTERFACE:qy_flags> "$<LINK_LIBRARY:WHOLE_ARCHIVE,${qy_whole}>" Threads::Threads m)
target_include_directories(quarry_shared INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/quarry>)

install(TARGETS quarry_shared EXPORT quarryTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development)
install(EXPORT quarryTargets NAMESPACE quarry::
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/quarry COMPONENT development)
foreach(module IN LISTS qy_modules)
  install(FILES ${PROJECT_SOURCE_DIR}/${module}/${module}.h
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/quarry/${module} COMPONENT development)
endforeach()
foreach(part IN ITEMS tensor_type index_bytes row_codec copies) # of gpu.h
  install(FILES ${PROJECT_SOURCE_DIR}/gpu/${part}.h
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/quarry/gpu COMPONENT development)
endforeach()

foreach(part IN ITEMS chunks memory memory_probe) # of offload.h
  install(FILES ${PROJECT_SOURCE_DIR}/offload/${part}.h
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/quarry/offload COMPONENT development)
endforeach()
foreach(part IN ITEMS inventory loopback ranks) # of net.h
  install(FILES ${PROJECT_SOURCE_DIR}/net/${part}.h
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/quarry/net COMPONENT development)
endforeach()

file(WRITE ${PROJECT_BINARY_DIR}/quarryConfig.cmake.in
  "@PACKAGE_INIT@\ninclude(\"\${CMAKE_CURRENT_LIST_DIR}/quarryTargets.cmake\")\ncheck_required_components(quarry)\n")
configure_package_config_file(${PROJECT_BINARY_DIR}/quarryConfig.cmake.in
  ${PROJECT_BINARY_DIR}/quarryConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/quarry)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/quarryConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/quarryConfig.cmake ${PROJECT_BINARY_DIR}/quarryConfigVersion.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/quarry COMPONENT development)

# Relocatable: the prefix is found from where the .pc file lies.
file(RELATIVE_PATH qy_pc_up "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" qy_pc_up "${qy_pc_up}")
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/quarry.pc @ONLY CONTENT
"prefix=\${pcfiledir}/@qy_pc_up@
libdir=\${prefix}/@CMAKE_INSTALL_LIBDIR@
includedir=\${prefix}/@CMAKE_INSTALL_INCLUDEDIR@/quarry

Name: quarry
Description: KV cache offloading and retrieval for long-context inference
Version: @PROJECT_VERSION@
Libs: -L\${libdir} -lquarry
Cflags: -I\${includedir}
")
install(FILES ${PROJECT_BINARY_DIR}/quarry.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/README.md
  DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT runtime)
file(GLOB qy_configs ${PROJECT_SOURCE_DIR}/configs/*.conf)
install(FILES ${qy_configs} DESTINATION ${CMAKE_INSTALL_DOCDIR}/configs COMPONENT runtime)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/configs/codebooks/
  DESTINATION ${CMAKE_INSTALL_DATADIR}/quarry/codebooks COMPONENT runtime)
install(PROGRAMS ${PROJECT_SOURCE_DIR}/scripts/plot
  DESTINATION ${CMAKE_INSTALL_DATADIR}/quarry COMPONENT runtime)

# The program, and its man page and completion, which it writes itself from its option table.
if(TARGET quarry)
  install(TARGETS quarry RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime)
  if(NOT CMAKE_CROSSCOMPILING)
    add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/quarry.1 ${PROJECT_BINARY_DIR}/quarry.bash
      COMMAND quarry help --man > ${PROJECT_BINARY_DIR}/quarry.1
      COMMAND quarry help --completion bash > ${PROJECT_BINARY_DIR}/quarry.bash
      DEPENDS quarry VERBATIM)
    add_custom_target(quarry_man ALL
      DEPENDS ${PROJECT_BINARY_DIR}/quarry.1 ${PROJECT_BINARY_DIR}/quarry.bash)
    install(FILES ${PROJECT_BINARY_DIR}/quarry.1
      DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT runtime)
    install(FILES ${PROJECT_BINARY_DIR}/quarry.bash RENAME quarry
      DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions COMPONENT runtime)
  endif()
endif()

# All modules as archives, without linking anything (cross builds).
get_property(qy_modules GLOBAL PROPERTY QY_MODULES)
list(TRANSFORM qy_modules PREPEND qy_)
add_custom_target(qy_archives DEPENDS ${qy_modules})
