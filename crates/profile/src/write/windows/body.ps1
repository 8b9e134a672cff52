
function Read-Certificate([string] $Base64) {
    New-Object Security.Cryptography.X509Certificates.X509Certificate2 (, [Convert]::FromBase64String($Base64))
}

# Certificates of this device and this authority, those of earlier files too.
function Get-OwnCertificate {
    if ($OwnBase64 -eq '') { return }
    $own = Read-Certificate $OwnBase64
    Get-ChildItem -LiteralPath Cert:\LocalMachine\My |
        Where-Object { $_.Subject -eq $own.Subject -and $_.Issuer -eq $own.Issuer }
}

# Rules for names that an earlier script of this connection has made.
function Remove-NameRule {
    Get-DnsClientNrptRule | Where-Object { $_.Comment -eq $Name } |
        ForEach-Object { Remove-DnsClientNrptRule -Name $_.Name -Force }
}

function Remove-Connection {
    $known = Get-VpnConnection -AllUserConnection | Where-Object { $_.Name -eq $Name }
    if ($known) {
        rasdial.exe $Name /disconnect | Out-Null
        Remove-VpnConnection -Name $Name -AllUserConnection -Force
    }
    Remove-NameRule
    Get-OwnCertificate | Remove-Item
}

function Add-Connection {
    $authority = Read-Certificate $AuthorityBase64
    $password = $null
    if ($P12 -ne '') {
        $password = Read-Host -AsSecureString -Prompt 'Password of the .p12 file'
        # A wrong password ends the script here, before anything has changed.
        Get-PfxData -FilePath (Join-Path $PSScriptRoot $P12) -Password $password | Out-Null
    }
    Remove-Connection
    $file = New-TemporaryFile
    try {
        [IO.File]::WriteAllBytes($file.FullName, $authority.RawData)
        Import-Certificate -FilePath $file.FullName -CertStoreLocation Cert:\LocalMachine\Root | Out-Null
    } finally {
        Remove-Item -LiteralPath $file.FullName
    }
    $connection = @{
        Name = $Name
        ServerAddress = $Server
        TunnelType = 'Ikev2'
        EncryptionLevel = 'Required'
        AllUserConnection = $true
        SplitTunneling = $Split
        Force = $true
    }
    if ($Domain -ne '') { $connection.DnsSuffix = $Domain }
    if ($P12 -ne '') {
        Import-PfxCertificate -FilePath (Join-Path $PSScriptRoot $P12) -Password $password -CertStoreLocation Cert:\LocalMachine\My | Out-Null
        $connection.AuthenticationMethod = 'MachineCertificate'
        # Of several machine certificates, that of this authority is taken.
        $connection.MachineCertificateIssuerFilter = $authority
    } else {
        $connection.AuthenticationMethod = 'Eap'
        $connection.EapConfigXmlStream = (New-EapConfiguration).EapConfigXmlStream
        $connection.RememberCredential = $true
    }
    Add-VpnConnection @connection
    $proposals = @{
        ConnectionName = $Name
        AllUserConnection = $true
        EncryptionMethod = $IkeCipher
        IntegrityCheckMethod = $IkeHash
        DHGroup = $IkeGroup
        CipherTransformConstants = $EspCipher
        AuthenticationTransformConstants = $EspCipher
        PfsGroup = $PfsGroup
        Force = $true
    }
    Set-VpnConnectionIPsecConfiguration @proposals
    foreach ($route in $Routes) {
        try {
            Add-VpnConnectionRoute -ConnectionName $Name -DestinationPrefix $route -AllUserConnection
        } catch {
            Write-Warning ($route + ' does not go through the VPN: ' + $_)
        }
    }
    foreach ($domain in $Domains) {
        # The name itself, and all that end with it.
        Add-DnsClientNrptRule -Namespace $domain, ('.' + $domain) -NameServers $Resolvers -Comment $Name
    }
    Write-Host 'Added. Connect by the network symbol of the task bar, or in Settings under Network and internet, VPN.'
}

function Restart-Connection {
    rasdial.exe $Name /disconnect
    rasdial.exe $Name
}

switch ($Action) {
    'add' { Add-Connection }
    'remove' {
        Remove-Connection
        $authority = Read-Certificate $AuthorityBase64
        Get-ChildItem -LiteralPath Cert:\LocalMachine\Root |
            Where-Object { $_.Thumbprint -eq $authority.Thumbprint } |
            Remove-Item
        Write-Host 'Removed.'
    }
    'reconnect' { Restart-Connection }
}
