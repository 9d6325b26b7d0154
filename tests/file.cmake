lg_unit(cold_test SOURCES unit/cold_test.c LIBS leadglass-core)
lg_unit(file_test SOURCES unit/file_test.c unit/filekeys.c OBJECTS lg_file lg_crypto lg_wire LIBS lg_ciphers PkgConfig::LIBURING)
# Steps between what a commit does in place and what it leaves to the journal.
target_link_options(file_test PRIVATE -Wl,--wrap=lg_flush_in_place)
lg_unit(salvage_test SOURCES unit/salvage_test.c unit/filekeys.c OBJECTS lg_file lg_crypto lg_wire LIBS lg_ciphers PkgConfig::LIBURING)
lg_unit(commit_test SOURCES unit/commit_test.c unit/filekeys.c OBJECTS lg_file lg_crypto lg_wire LIBS lg_ciphers PkgConfig::LIBURING)
lg_unit(cost_test SOURCES unit/cost_test.c unit/filekeys.c OBJECTS lg_file lg_crypto lg_wire LIBS lg_ciphers PkgConfig::LIBURING)
lg_unit(table_test SOURCES unit/table_test.c unit/filekeys.c OBJECTS lg_file lg_crypto lg_wire LIBS lg_ciphers PkgConfig::LIBURING)
lg_unit(seek_test SOURCES unit/seek_test.c unit/filekeys.c OBJECTS lg_file lg_crypto lg_wire LIBS lg_ciphers PkgConfig::LIBURING)
target_link_options(seek_test PRIVATE -Wl,--wrap=lg_entry_empty) # counted
