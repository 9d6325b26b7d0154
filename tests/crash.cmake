# Power cuts. disk.c records changes of names by standing between the core and the system calls.
add_executable(crash_test crash/crash_test.c crash/disk.c)
target_link_libraries(crash_test PRIVATE leadglass-core Threads::Threads)
target_link_options(crash_test PRIVATE
    LINKER:--wrap=openat,--wrap=mkdirat,--wrap=mknodat,--wrap=symlinkat,--wrap=linkat,--wrap=unlinkat,--wrap=renameat2,--wrap=syncfs,--wrap=fsync)
add_test(NAME crash_test COMMAND crash_test --states ${LG_CRASH_STATES})
set_tests_properties(crash_test PROPERTIES LABELS crash TIMEOUT 1800)
