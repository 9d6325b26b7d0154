# Power cuts and errors from below. disk.c records changes of names by standing between the core and the system calls.
add_library(crash_disk STATIC crash/disk.c crash/image.c crash/record.c crash/memkeys.c crash/scratch.c)
target_link_libraries(crash_disk PUBLIC leadglass-core Threads::Threads)
target_link_options(crash_disk INTERFACE
    LINKER:--wrap=openat,--wrap=mkdirat,--wrap=mknodat,--wrap=symlinkat,--wrap=linkat,--wrap=unlinkat,--wrap=renameat2,--wrap=syncfs,--wrap=fsync
    LINKER:--wrap=setxattr,--wrap=fsetxattr,--wrap=removexattr,--wrap=chmod,--wrap=fchmod,--wrap=fchown,--wrap=fchownat,--wrap=futimens,--wrap=utimensat,--wrap=clock_gettime)
foreach(name crash_test fault_test)
  add_executable(${name} crash/${name}.c)
  target_link_libraries(${name} PRIVATE crash_disk)
endforeach()
add_test(NAME crash_test COMMAND crash_test --states ${LG_CRASH_STATES})
add_test(NAME fault_test COMMAND fault_test)
set_tests_properties(crash_test fault_test PROPERTIES LABELS crash TIMEOUT ${LG_CRASH_SECONDS} SKIP_RETURN_CODE 77)
