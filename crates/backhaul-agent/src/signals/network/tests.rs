//! Looks at made-up kernels.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::os::unix::fs::symlink;

/// A laptop at home: wlan0 192.168.1.23/24 with a gateway, and a docker bridge.
const ROUTE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
wlan0\t0000000A\tFE01A8C0\t0003\t0\t0\t600\t000000FF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
wlan0\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0
";
const ARP: &str = "\
IP address       HW type     Flags       HW address            Mask     Device
192.168.1.1      0x1         0x2         3C:84:6a:00:00:01     *        eth9
192.168.1.1      0x1         0x2         3C:84:6a:00:00:02     *        wlan0
192.168.1.254    0x1         0x2         3c:84:6a:00:00:03     *        wlan0
";
const NO_ARP: &str = "IP address       HW type     Flags       HW address            Mask     Device
192.168.1.1      0x1         0x0         00:00:00:00:00:00     *        wlan0
";

/// Names and contents.
type Files = &'static [(&'static str, &'static str)];

struct Kernel(tempfile::TempDir);

impl Kernel {
    fn new(route: &str, arp: &str) -> Self {
        let kernel = Self(tempfile::tempdir().unwrap());
        kernel.write("proc/net/route", route);
        kernel.write("proc/net/arp", arp);
        kernel
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn interface(&self, name: &str, files: &[(&str, &str)], driver: Option<&str>) {
        for (file, text) in files {
            self.write(&format!("sys/class/net/{name}/{file}"), text);
        }
        if let Some(driver) = driver {
            let device = self.0.path().join(format!("sys/class/net/{name}/device"));
            fs::create_dir_all(&device).unwrap();
            symlink(format!("../../bus/usb/drivers/{driver}"), device.join("driver")).unwrap();
        }
    }

    fn roots(&self) -> Roots {
        Roots { proc: self.0.path().join("proc"), sys: self.0.path().join("sys") }
    }
}

fn home() -> Kernel {
    let kernel = Kernel::new(ROUTE, ARP);
    kernel.interface("wlan0", &[("type", "1\n"), ("uevent", "DEVTYPE=wlan\nINTERFACE=wlan0\n")], None);
    kernel
}

fn see(kernel: &Kernel, source: &str, addresses: &[Address]) -> Network {
    Looker::new(kernel.roots()).sight(source.parse().unwrap(), addresses).network.unwrap()
}

fn address(interface: &str, address: &str, prefix: u8) -> Address {
    Address { interface: interface.to_owned(), address: address.parse().unwrap(), prefix }
}

#[test]
fn a_network_is_its_kind_prefix_and_gateway() {
    let kernel = home();
    let here = see(&kernel, "192.168.1.23", &[]);
    assert_eq!(here.kind, InterfaceKind::Wifi);
    // Another lease of the same network, and the same with the kernel's own list of addresses.
    assert_eq!(see(&kernel, "192.168.1.99", &[]).fingerprint, here.fingerprint);
    let listed = [address("wlan0", "192.168.1.23", 24)];
    assert_eq!(see(&kernel, "192.168.1.23", &listed), here);
    // The neighbour's box has the same addresses.
    kernel.write("proc/net/arp", &ARP.replace("00:00:02", "00:00:07"));
    assert_ne!(see(&kernel, "192.168.1.23", &[]).fingerprint, here.fingerprint);
    // The same box by cable.
    let cable = Kernel::new(ROUTE, ARP);
    cable.interface("wlan0", &[("type", "1")], Some("e1000e"));
    let by_cable = see(&cable, "192.168.1.23", &[]);
    assert_eq!(by_cable.kind, InterfaceKind::Ethernet);
    assert_ne!(by_cable.fingerprint, here.fingerprint);
    // A wider network.
    assert_ne!(
        see(&home(), "192.168.1.23", &[address("wlan0", "192.168.1.23", 16)]).fingerprint,
        here.fingerprint
    );
}

#[test]
fn a_gateway_that_the_kernel_forgot_is_remembered_and_a_new_one_asked_for() {
    let kernel = home();
    let mut looker = Looker::new(kernel.roots());
    let source = "192.168.1.23".parse().unwrap();
    let before = looker.sight(source, &[]);
    assert!(!before.again);
    kernel.write("proc/net/arp", NO_ARP);
    assert_eq!(looker.sight(source, &[]), before);
    // Somewhere else the memory is worth nothing.
    let elsewhere = looker.sight(source, &[address("wlan0", "192.168.1.23", 16)]);
    assert!(elsewhere.again);
    kernel.write("proc/net/arp", ARP);
    let known = looker.sight(source, &[address("wlan0", "192.168.1.23", 16)]);
    assert!(!known.again && known.network != elsewhere.network);
}

#[test]
fn temporary_addresses_do_not_change_a_network() {
    let kernel = home();
    let list = "20010db8000000010000000000000001 02 40 00 80 wlan0
20010db80000000100000000000abcde 02 40 01 00 wlan0
20010db80000000200000000000abcde 02 80 00 00 wlan0
fe80000000000000009900fffe000001 02 40 20 80    wlan0
";
    kernel.write("proc/net/if_inet6", list);
    let one = see(&kernel, "2001:db8:0:1::1", &[]);
    let temporary = see(&kernel, "2001:db8:0:1::a:bcde", &[]);
    assert_eq!(one.kind, InterfaceKind::Wifi);
    assert_eq!(one.fingerprint, temporary.fingerprint);
    assert_ne!(one, temporary);
    assert_ne!(see(&kernel, "2001:db8:0:2::a:bcde", &[]).fingerprint, one.fingerprint);
    // By DHCP the address stands alone; whether it does is no other network.
    assert_eq!(
        see(&kernel, "2001:db8:0:1::5", &[address("wlan0", "2001:db8:0:1::5", 128)]),
        Network { source: "2001:db8:0:1::5".parse().unwrap(), ..one }
    );
}

#[test]
fn a_tunnel_has_no_gateway() {
    let kernel = home();
    kernel.interface("office", &[("type", "65534"), ("uevent", "DEVTYPE=wireguard")], None);
    let addresses = [address("office", "10.7.0.2", 32)];
    let inside = see(&kernel, "10.7.0.2", &addresses);
    assert_eq!(inside.kind, InterfaceKind::Tunnel);
    kernel.write("proc/net/route", "");
    kernel.write("proc/net/arp", "");
    assert_eq!(see(&kernel, "10.7.0.2", &addresses), inside);
}

#[test]
fn kinds_are_told_by_the_device_and_else_by_the_name() {
    let kernel = home();
    const PHONE: &str = "02:11:22:33:44:55";
    let interfaces: [(&str, Files, Option<&str>, InterfaceKind); 10] = [
        ("wwan0", &[("type", "65534"), ("uevent", "DEVTYPE=wwan")], None, InterfaceKind::Wwan),
        ("wwp0s20", &[("type", "1")], Some("cdc_mbim"), InterfaceKind::Wwan),
        ("enx1", &[("type", "1"), ("address", PHONE)], Some("cdc_ncm"), InterfaceKind::UsbTether),
        (
            "enx2",
            &[("type", "1"), ("address", "00:e0:4c:68:00:01")],
            Some("cdc_ncm"),
            InterfaceKind::Ethernet,
        ),
        (
            "enx3",
            &[("type", "1"), ("address", "00:e0:4c:68:00:01")],
            Some("rndis_host"),
            InterfaceKind::UsbTether,
        ),
        ("eth0", &[("type", "1"), ("address", PHONE)], Some("virtio_net"), InterfaceKind::Ethernet),
        ("tap0", &[("type", "1"), ("tun_flags", "0x1002")], None, InterfaceKind::Tunnel),
        ("ppp0", &[("type", "512")], None, InterfaceKind::Tunnel),
        ("can0", &[("type", "280")], None, InterfaceKind::Other),
        ("lo", &[("type", "772")], None, InterfaceKind::Other),
    ];
    for (name, files, driver, expected) in interfaces {
        kernel.interface(name, files, driver);
        assert_eq!(kind(&kernel.roots(), name), expected, "{name}");
    }
    let unseen =
        [("wlp2s0", InterfaceKind::Wifi), ("wg0", InterfaceKind::Tunnel), ("usb0", InterfaceKind::UsbTether)];
    for (name, expected) in unseen.into_iter().chain([("enp1s0", InterfaceKind::Ethernet)]) {
        assert_eq!(kind(&kernel.roots(), name), expected, "{name}");
    }
}

#[test]
fn a_kernel_that_tells_nothing_still_has_networks() {
    let empty = tempfile::tempdir().unwrap();
    let roots = Roots { proc: empty.path().join("proc"), sys: empty.path().join("sys") };
    let mut looker = Looker::new(roots);
    let mut see = |source: &str| looker.sight(source.parse().unwrap(), &[]).network.unwrap();
    assert_eq!(see("192.0.2.1").kind, InterfaceKind::Other);
    assert_ne!(see("192.0.2.1").fingerprint, see("192.0.2.2").fingerprint);
    assert_eq!(see("2001:db8::1").fingerprint, see("2001:db8::2").fingerprint);
}

#[test]
fn this_machine_reaches_itself_and_says_so() {
    let mut looker = Looker::new(Roots::default());
    let network = looker.look(&["127.0.0.1:9".parse().unwrap()]).network.unwrap();
    assert_eq!((network.source, network.kind), ("127.0.0.1".parse().unwrap(), InterfaceKind::Other));
    assert_eq!(looker.look(&[]).network, None);
}
