/* Opens the file it is given, has a child open it too, and says something: what a program does that has other rights than whoever started it. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    /* Not in the program's text as it is said. */
    char said[] = "tfdsfu.pg.sppu";
    if (argc < 2) return 2;
    for (char *at = said; *at; at++) *at -= 1;
    open(argv[1], O_RDONLY | O_CREAT, 0644);
    pid_t child = fork();
    if (child == 0) {
        open(argv[1], O_RDONLY);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    return write(1, said, sizeof said - 1) < 0;
}
