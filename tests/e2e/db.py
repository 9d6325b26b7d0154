"""Databases in the store simply work."""
import os, sqlite3
from lib import *

w = World()
w.init()
m = w.mount()
for mode in ("wal", "delete", "truncate"):
    p = os.path.join(m, mode + ".db")
    db = sqlite3.connect(p)
    assert db.execute("pragma journal_mode=" + mode).fetchone()[0] == mode
    db.execute("create table t (k integer primary key, v text)")
    for i in range(300):
        db.execute("insert into t values (?, ?)", (i, "v%d" % i * 20))
        if i % 10 == 0:
            db.commit()
    db.execute("delete from t where k % 3 = 0")
    db.commit()
    db.execute("vacuum")
    db.close()
m = w.remount()
for mode in ("wal", "delete", "truncate"):
    db = sqlite3.connect(os.path.join(m, mode + ".db"))
    assert db.execute("pragma integrity_check").fetchone()[0] == "ok"
    assert db.execute("select count(*) from t").fetchone()[0] == 200
    db.close()
w.umount()
print("ok")
