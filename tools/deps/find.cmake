# What tools/deps/build made, where it did and -DLG_SYSTEM_LIBS=ON does not say otherwise. PkgConfig::FUSE: the private libfuse, or else the system's; the programs are
# written against either. LG_IPSEC_MB: libipsec-mb, or nothing. LG_FUSE_WHERE, LG_IPSEC_WHERE: where they stand, with headers and
# terms, or "none".
file(GLOB lg_recipe CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/build ${CMAKE_CURRENT_LIST_DIR}/*.patch)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${lg_recipe})
# lg_private(NAME MARK VARIABLE): where the private build of NAME is, which has the file MARK, or "none"
macro(lg_private name mark variable)
  execute_process(COMMAND ${CMAKE_CURRENT_LIST_DIR}/build --where ${name} OUTPUT_VARIABLE ${variable} OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  if(LG_SYSTEM_LIBS OR NOT EXISTS ${${variable}}/${mark})
    set(${variable} none)
  endif()
endmacro()
lg_private(libfuse lib/pkgconfig/fuse3.pc lg_where)
if(NOT lg_where STREQUAL "${LG_FUSE_WHERE}") # pkg-config's answers are cached: forget those for another place
  unset(__pkg_config_checked_FUSE CACHE)
  unset(pkgcfg_lib_FUSE_fuse3 CACHE)
  set(LG_FUSE_WHERE ${lg_where} CACHE INTERNAL "")
endif()
set(ENV{PKG_CONFIG_PATH} "${lg_where}/lib/pkgconfig:$ENV{PKG_CONFIG_PATH}")
pkg_check_modules(FUSE REQUIRED IMPORTED_TARGET fuse3>=3.14)
message(STATUS "libfuse ${FUSE_VERSION} (${lg_where})")
string(REGEX MATCH "^3\\.([0-9]+)" lg_fuse_api ${FUSE_VERSION})
if(CMAKE_MATCH_1 GREATER 18) # the newest interface that this code is written to
  set(CMAKE_MATCH_1 18)
endif()
add_compile_definitions(FUSE_USE_VERSION=3${CMAKE_MATCH_1})
lg_private(libipsec-mb lib/libIPSec_MB.a LG_IPSEC_WHERE)
if(NOT LG_IPSEC_WHERE STREQUAL none)
  set(LG_IPSEC_MB ${LG_IPSEC_WHERE}/lib/libIPSec_MB.a)
  message(STATUS "AES-256-GCM: libipsec-mb (${LG_IPSEC_WHERE})")
else()
  message(STATUS "AES-256-GCM: OpenSSL")
endif()
