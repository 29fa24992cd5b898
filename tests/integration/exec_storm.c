/* Runs a program again and again at a fixed rate, and says how long each run took to begin and end.
 *
 *     exec_storm COUNT RATE PROGRAM [same]        RATE a second; 0: as fast as it goes
 *
 * The program gets its number as argument, so that a reader can tell which runs it has seen; with
 * `same` it is always 0. A run that begins late does not delay the next ones.
 * Prints: runs, seconds, and of one run's time the median and the 99th percentile in microseconds.
 */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int ascending(const void *one, const void *other)
{
	double difference = *(const double *)one - *(const double *)other;

	return (difference > 0) - (difference < 0);
}

int main(int count, char **arguments)
{
	if (count != 4 && count != 5)
		return 2;
	long runs = atol(arguments[1]), rate = atol(arguments[2]);
	double *took = calloc(runs, sizeof(*took)), begin = now();

	for (long run = 0; run < runs; run++) {
		char number[32];
		char *argv[] = {arguments[3], number, NULL};
		double due = rate ? begin + (double)run / rate : 0, wait = due - now(), start;
		pid_t child;

		snprintf(number, sizeof(number), "run=%ld", count == 5 ? 0 : run);
		if (wait > 0) {
			struct timespec rest = {(time_t)wait, (wait - (time_t)wait) * 1e9};

			nanosleep(&rest, NULL);
		}
		start = now();
		if (posix_spawn(&child, arguments[3], NULL, NULL, argv, NULL))
			return 1;
		waitpid(child, NULL, 0);
		took[run] = now() - start;
	}
	double seconds = now() - begin;

	qsort(took, runs, sizeof(*took), ascending);
	printf("%ld %.3f %.1f %.1f\n", runs, seconds, took[runs / 2] * 1e6, took[runs * 99 / 100] * 1e6);
	return 0;
}
