import time

print("loading", flush=True)
while True:
    time.sleep(0.05)
