#Requires -RunAsAdministrator
# Adds, removes or reconnects a VPN connection. In a PowerShell started as administrator, in this file's folder:
#   powershell -ExecutionPolicy Bypass -File .\THIS-FILE.ps1
#   powershell -ExecutionPolicy Bypass -File .\THIS-FILE.ps1 remove
#   powershell -ExecutionPolicy Bypass -File .\THIS-FILE.ps1 reconnect
param(
    [ValidateSet('add', 'remove', 'reconnect')]
    [string] $Action = 'add'
)
$ErrorActionPreference = 'Stop'

