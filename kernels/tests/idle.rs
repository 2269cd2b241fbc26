//! Workers that have nothing to do sleep. In a file of its own, and so in a process of its own: what other tests' threads do
//! must not count.

#[cfg(target_os = "linux")]
#[test]
fn workers_without_work_take_no_processor_time() {
    use std::path::Path;
    use std::time::Duration;

    use paceline_kernels::ThreadPool;

    if !Path::new("/proc/self/task").exists() || !Path::new("/proc/self/schedstat").exists() {
        println!("skipped: this system does not tell what its threads take");
        return;
    }
    // Nanoseconds on a processor of all threads but the one that runs this test.
    let others = || -> u64 {
        let own = std::fs::read_link("/proc/thread-self").expect("a thread");
        let own = own.file_name().expect("a number").to_owned();
        let tasks = std::fs::read_dir("/proc/self/task").expect("tasks").map(|task| task.expect("a task"));
        let tasks = tasks.filter(|task| task.file_name() != own);
        let told = tasks.map(|task| std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default());
        told.filter_map(|told| told.split(' ').next()?.parse::<u64>().ok()).sum()
    };
    let pool = ThreadPool::new(3).expect("threads start");
    pool.run(30, &|_| std::thread::sleep(Duration::from_micros(100)));
    // Longer than they look for work.
    std::thread::sleep(Duration::from_millis(20));
    let before = others();
    assert!(before > 0, "workers ran");
    std::thread::sleep(Duration::from_millis(300));
    let taken = others() - before;
    assert!(taken < 3_000_000, "three threads took {taken} ns in 300 ms of having nothing to do");
    drop(pool);
}
