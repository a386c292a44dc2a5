#!/bin/sh
echo "INFO mailer waits for mail"
while sleep 60; do echo "INFO no mail"; done
