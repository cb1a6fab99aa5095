use divvy::demo::{characters, names, tables};
use sqlx::{Connection, PgConnection};
use std::time::Instant;
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut c = PgConnection::connect(&std::env::args().nth(1).unwrap()).await.unwrap();
    let t = Instant::now();
    let all = characters::characters().unwrap();
    println!("decode {:?}", t.elapsed());
    tables::load(&mut c, &all).await.unwrap();
    println!("load {:?}", t.elapsed());
    let pairs = tables::pairs(&mut c).await.unwrap();
    let chars = tables::characters(&mut c, 0..0x110000).await.unwrap();
    println!("read {:?}", t.elapsed());
    let ranges = names::ranges(&chars, &pairs, 480);
    println!("ranges {:?}", t.elapsed());
    let (mut compute, mut write) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
    for r in ranges {
        let chars = tables::characters(&mut c, r).await.unwrap();
        let a = Instant::now();
        let n = pairs.normalized(&chars);
        compute += a.elapsed();
        let a = Instant::now();
        tables::write(&mut c, n).await.unwrap();
        write += a.elapsed();
    }
    println!("compute {compute:?} write {write:?} {:?}", t.elapsed());
    let r = tables::reduce(&mut c).await.unwrap();
    println!("reduce {r:?} {:?}", t.elapsed());
    let d = tables::differences(&mut c).await.unwrap();
    println!("check {d:?} {:?}", t.elapsed());
    for e in tables::examples(&mut c).await.unwrap() {
        println!("{e:?}");
    }
}
