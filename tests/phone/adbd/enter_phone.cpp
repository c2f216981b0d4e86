// Called by adbd_main() in place of Android's minijail: adbd becomes uid 2000 inside the folder that $PHONE_ROOT names and
// listens where $PHONE_LISTEN says, so that shell, exec and sync all work there; its properties come from the file that getprop reads too.
#include <grp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include <android-base/logging.h>
#include <android-base/properties.h>

void enter_phone() {
    const char* root = getenv("PHONE_ROOT");
    if (root == nullptr || getenv("PHONE_LISTEN") == nullptr) LOG(FATAL) << "PHONE_ROOT or PHONE_LISTEN is not set";
    if (chroot(root) != 0 || chdir("/") != 0) PLOG(FATAL) << "cannot enter " << root;
    unsetenv("PHONE_ROOT");
    android::base::SetProperty("service.adb.listen_addrs", getenv("PHONE_LISTEN"));
    unsetenv("PHONE_LISTEN");
    std::ifstream properties("/state/properties");
    for (std::string line; std::getline(properties, line);) {
        const size_t equals = line.find('=');
        if (equals != std::string::npos) {
            android::base::SetProperty(line.substr(0, equals), line.substr(equals + 1));
        }
    }
    // input, log, adb, sdcard_rw, net_bt_admin, net_bt, inet, net_bw_stats, readproc, uhid: those of adbd's own drop_privileges()
    const gid_t groups[] = {1004, 1007, 1011, 1015, 3001, 3002, 3003, 3006, 3009, 3011};
    if (setgroups(sizeof(groups) / sizeof(groups[0]), groups) != 0 || setgid(2000) != 0 || setuid(2000) != 0) {
        PLOG(FATAL) << "cannot become the shell user";
    }
    prctl(PR_SET_DUMPABLE, 1);  // setuid clears it, and then /proc/self belongs to root
}
