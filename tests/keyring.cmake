lg_unit(slotfile_test SOURCES unit/slotfile_test.c OBJECTS lg_crypto lg_keyring LIBS PkgConfig::OPENSSL PkgConfig::LMDB)
target_include_directories(slotfile_test PRIVATE ${CMAKE_SOURCE_DIR}/keymgr/keyring)
lg_unit(keyring_test SOURCES unit/keyring_test.c OBJECTS lg_keyring lg_crypto lg_wire LIBS PkgConfig::OPENSSL PkgConfig::LMDB)
target_include_directories(keyring_test PRIVATE ${CMAKE_SOURCE_DIR}/keymgr/keyring)
