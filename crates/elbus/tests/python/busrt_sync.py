"""Package `busrt` (threads) against the broker on a UNIX socket: see sync_scenario.py."""
import sync_scenario

if __name__ == '__main__':
    sync_scenario.run('busrt')
