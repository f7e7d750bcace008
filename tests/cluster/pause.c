/* The process that holds a pod's namespaces open. It is pid 1 of the pod only where processes share a
 * pid namespace; it then has to reap orphans. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(int signal) {
    (void)signal;
    while (waitpid(-1, 0, WNOHANG) > 0) {
    }
}

static void end(int signal) {
    (void)signal;
    _exit(0);
}

int main(void) {
    signal(SIGCHLD, reap);
    signal(SIGTERM, end);
    signal(SIGINT, end);
    for (;;) pause();
}
