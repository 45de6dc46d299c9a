//! A slice of the simulation, small enough for every test run.

use backhaul_fleet_sim::check::check;

#[test]
fn a_few_days_come_out_as_promised() {
    let findings = check();
    let broken: Vec<_> = findings.iter().filter(|finding| !finding.holds).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}
