lg_fuzz(classify_fuzz SOURCES fuzz/classify_fuzz.c OBJECTS lg_classify LIBS PkgConfig::ZLIB)
lg_fuzz(format_fuzz SOURCES fuzz/format_fuzz.c LIBS leadglass-core)
lg_fuzz(slotfile_fuzz SOURCES fuzz/slotfile_fuzz.c LIBS leadglass-keys)
lg_fuzz(audit_fuzz SOURCES fuzz/audit_fuzz.c LIBS leadglass-keys)
