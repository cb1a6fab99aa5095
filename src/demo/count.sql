select count(*) from demo.normalized
